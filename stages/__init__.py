"""The pipeline, one line a stage; the files that flow between them stand at the head of each.

embed      a table of texts, an embedding model -> batches of embeddings; a command, which no stage waits for
reduce     embeddings to be clustered -> their principal components, standardised; of a sample where that is asked for
link       reduced embeddings -> the tree of all merges, by cosine distance
cluster    reduced embeddings, tree -> the number of clusters and the label of each row; the numbers of clusters that are
           known from a training before
train      reduced embeddings, labels -> centroids and a regression on the distances to them;
           embeddings -> a detector of rows unlike those in training
name       texts that were clustered, labels, model -> names of the clusters, and what makes a whole of the model
classify   embeddings to be classified, model -> cluster, probability and novelty of each row, and drift;
           embeddings to be clustered, labels, model -> the same of each, and who has labelled it
emerging   new and clustered embeddings, predictions -> groups of new rows where hardly any clustered row lies
describe   labels of all rows, model, predictions, texts -> what each cluster is about, in words and in rows; what has
           become of the clusters whose numbers are kept
visualize  embeddings, labels, silhouettes, tree, model, predictions -> the map and the pictures
table      tables of clusters and predictions, emerging groups, the map -> one table of all rows; a command, which no
           stage waits for
keep       embeddings, labels, model -> what clusters are known by later, so that their numbers last; a command, which no
           stage runs
compare    reduced embeddings, tree, labels -> every method side by side, null band, stability, a verdict in words
model      the model from Python: arrays of embeddings -> the same
export     the model -> ONNX; a command, which no stage waits for

runtime/     what every stage stands on: a command line, parameters, files written whole, figures, workers
files/       what lies in data/: batches of embeddings, their texts, predictions
pictures/    what is drawn, and from which points
algorithms/  arrays in, arrays out

Stages meet in files only; none imports another. README.md here has the plan, and says how to add to it.
"""

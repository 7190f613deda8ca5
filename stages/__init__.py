"""The pipeline, one line a stage; the files that flow between them stand at the head of each.

reduce     embeddings to be clustered -> their principal components, standardised
link       reduced embeddings -> the tree of all merges, by cosine distance
cluster    reduced embeddings, tree -> the number of clusters and the label of each row
train      reduced embeddings, labels -> centroids and a regression on the distances to them;
           embeddings -> a detector of rows unlike those in training
classify   embeddings to be classified, model -> cluster, probability and novelty of each row, and drift
describe   labels, model, predictions, texts -> what each cluster is about, in words and in rows
visualize  embeddings, labels, tree, model, predictions, plot data -> the map and the pictures
compare    reduced embeddings, tree, labels -> every method side by side, null band, stability, a verdict in words

Shared by them: batches (reading folders of embeddings), rows (texts and predictions), predictions (writing these),
methods (clustering methods by name), verdict (the comparison in words), pictures and comparison_pictures (plots drawn),
workers (tasks on cores or a cluster), tracking (parameters, metrics, plot data), algorithms/ (arrays in, arrays out).
Stages meet in files only; none imports another.
"""

"""The pipeline, one line a stage; the files that flow between them stand at the head of each.

reduce     embeddings to be clustered -> their principal components, standardised
link       reduced embeddings -> the tree of all merges, by cosine distance
cluster    reduced embeddings, tree -> the number of clusters and the label of each row
train      reduced embeddings, labels -> centroids and a regression on the distances to them
classify   embeddings to be classified, model -> cluster, probability and novelty of each row, and drift
visualize  reduced embeddings, labels, plot data -> the map and the pictures

Shared by them: batches (reading folders of embeddings), predictions (writing files of predictions), workers (tasks on
cores or a cluster), tracking (parameters, metrics, plot data), algorithms/ (arrays in, arrays out). Stages meet in
files only; none imports another.
"""

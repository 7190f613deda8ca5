"""What shows clusters to people: a map, a dendrogram, words, typical rows."""

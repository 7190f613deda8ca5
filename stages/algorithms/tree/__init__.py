"""The dendrogram: exact, in linear memory."""

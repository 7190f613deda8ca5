"""What lies in data/: batches of embeddings, their texts, predictions."""

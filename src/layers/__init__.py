"""Parts that several families share. They take tensors and numbers, and know no family and no configuration."""

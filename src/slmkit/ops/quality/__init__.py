"""`quality`: what a quant costs, in what the model predicts, does and knows."""

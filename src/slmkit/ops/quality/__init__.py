"""`quality`: what a quant costs beside its float file, in perplexity and KL divergence."""

from slmkit.ops.quality.asked import Asked
from slmkit.ops.quality.baseline import open_baseline
from slmkit.ops.quality.damage import damage
from slmkit.ops.quality.run import quality

__all__ = ["Asked", "damage", "open_baseline", "quality"]

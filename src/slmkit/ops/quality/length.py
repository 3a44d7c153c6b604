"""Whether there is enough of a text, found out before anything is read."""

from __future__ import annotations

from slmkit.backends.llamacpp.quality import n_tokens
from slmkit.core.artifact import Artifact
from slmkit.core.quality import Corpus, QualitySpec
from slmkit.errors import UsageError


def check_length(base: Artifact, corpus: Corpus, spec: QualitySpec) -> None:
    """Raise `UsageError` for a corpus of which `base` makes no chunk; only its vocabulary is loaded."""
    found = n_tokens(base.path, corpus, spec.n_ctx)
    if max(found.values()) < spec.n_ctx:
        name = max(found, key=lambda domain: found[domain])
        raise UsageError(
            f"the text {name} is {found[name]:,} tokens long: less than one chunk of {spec.n_ctx}",
            hint="give a longer one: `--corpus FILE`",
        )

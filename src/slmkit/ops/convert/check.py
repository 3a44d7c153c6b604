"""Will it convert, and to what? From config, tokenizer and headers alone: not one weight is read or downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from slmkit.core.progress import SILENT, Progress
from slmkit.errors import ConvertError, FormatError, HubFileNotFoundError, OfflineError, SlmkitError
from slmkit.formats.safetensors import Tensor, read_checkpoint
from slmkit.hub import select
from slmkit.hub.cache import RemoteFile
from slmkit.hub.client import HubClient, RepoSnapshot
from slmkit.hub.download import download
from slmkit.hub.headers import read_headers
from slmkit.ops.convert.architecture import check_supported
from slmkit.ops.convert.config import read_config
from slmkit.ops.convert.plan import TYPES, make_plan
from slmkit.ops.convert.stored import plain

CONFIG = "config.json"
NO = (ConvertError, FormatError, HubFileNotFoundError)
"""Errors that say what is wrong with the checkpoint, and so answer the question."""

_NOT_READ = ("LICENSE*", "LICENCE*", "NOTICE*", "*.safetensors")
_IN_TOKENIZER_JSON = ("vocab.json", "merges.txt")


@dataclass(frozen=True)
class ConvertCheck:
    """What `convert` would make of `ref`, or in `refusal` why it makes nothing.

    `hf_architecture` is what config.json calls it, `architecture` what GGUF does. `size_bytes` is that of the whole
    file for each type, exactly; `auto` is the type that `auto` comes to. `remarks` say what is left out, and what else
    should be known of the result.
    """

    ref: str
    refusal: SlmkitError | None = None
    hf_architecture: str | None = None
    architecture: str | None = None
    n_params: int | None = None
    n_tensors: int | None = None
    context_length: int | None = None
    tokenizer: str | None = None
    auto: str | None = None
    size_bytes: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def converts(self) -> bool:
        """The answer."""
        return self.refusal is None


def check_folder(
    ref: str,
    folder: Path,
    *,
    model_id: str,
    commit: str | None = None,
    pre: str | None = None,
    remote: Mapping[str, Mapping[str, Tensor]] | None = None,
    progress: Progress = SILENT,
) -> ConvertCheck:
    """The answer for a checkpoint's folder, of which `remote` has the weights' headers when they are not in it.

    `model_id`, `commit` and `pre` are those of `convert`, and the sizes are exact only with the same.
    """
    hf_name = None
    try:
        config = read_config(folder)
        match config.raw.get("architectures"):
            case [str(first), *_]:
                hf_name = first
        stored = None if remote is None else plain(config, read_checkpoint(folder, remote))
        plan = make_plan(
            folder, outtype="auto", model_id=model_id, commit=commit, pre=pre, stored=stored, progress=progress
        )
    except NO as error:
        return ConvertCheck(ref, error, hf_architecture=hf_name)
    a, values = plan.architecture.name, {key: value.value for key, value in plan.metadata.items()}
    return ConvertCheck(
        ref=ref,
        hf_architecture=hf_name,
        architecture=a,
        n_params=plan.n_params,
        n_tensors=len(plan.tensors),
        context_length=values.get(f"{a}.context_length"),
        tokenizer=f"{values['tokenizer.ggml.model']} ({values.get('tokenizer.ggml.pre', 'default')})",
        auto=plan.outtype,
        size_bytes={name: plan.size_bytes(name) for name in TYPES if name != "auto"},
        remarks=plan.remarks,
    )


def check_hub(
    repo: str,
    revision: str | None = None,
    *,
    pre: str | None = None,
    offline: bool = False,
    progress: Progress = SILENT,
    client: HubClient | None = None,
) -> ConvertCheck:
    """The answer for a repository on the Hub; offline, for what the cache has of it.

    Small files go into the Hugging Face cache, of the weights only the headers are asked for. config.json comes first:
    an architecture that does not convert costs nothing more. Raises the `HubError`s that are no answer.
    """
    ref = f"{repo}@{revision}" if revision else repo
    with client or HubClient(offline=offline, progress=progress) as hub:
        snapshot = hub.snapshot(repo, revision)
        try:
            paths = select.checkpoint_files(repo, snapshot.paths)
        except HubFileNotFoundError as error:
            if not hub.offline:
                return ConvertCheck(ref, error)
            raise OfflineError(
                f"{ref} is not complete in the cache, and offline mode is on",
                hint=f"without HF_HUB_OFFLINE: `slmkit convert --check {ref}`",
            ) from error
        files = {file.path: file for file in snapshot.files}
        folder = download(hub, snapshot, [files[CONFIG]]).root
        try:
            check_supported(folder)
        except ConvertError:
            return check_folder(ref, folder, model_id=repo)  # says the same, with what else is known
        small = [files[path] for path in paths if _is_read(path, paths)]
        weights = [files[path] for path in paths if path.endswith(".safetensors")]
        try:
            headers = _fetch(hub, snapshot, small, weights, progress)
        except FormatError as error:
            return ConvertCheck(ref, error)
        return check_folder(
            ref, folder, model_id=repo, commit=snapshot.commit, pre=pre, remote=headers, progress=progress
        )


def _fetch(
    hub: HubClient, snapshot: RepoSnapshot, small: list[RemoteFile], weights: list[RemoteFile], progress: Progress
) -> Mapping[str, Mapping[str, Tensor]]:
    """Both at the same time: headers are a matter of waiting, tokenizers of bytes."""
    with ThreadPoolExecutor(1) as pool:
        headers = pool.submit(read_headers, hub, snapshot, weights)
        download(hub, snapshot, small, progress=progress)
        return headers.result()


def _is_read(path: str, paths: tuple[str, ...]) -> bool:
    """Whether the converter looks at it."""
    skipped = (*_NOT_READ, *(_IN_TOKENIZER_JSON if "tokenizer.json" in paths else ()))
    return not any(fnmatchcase(path, pattern) for pattern in skipped)

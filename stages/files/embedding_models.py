"""Embedding models: sentence-transformers' and static ones of model2vec, from a folder or from the Hugging Face Hub."""

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from stages.files.embedding import Embedding
from stages.runtime.arrays import shortened
from stages.runtime.files import not_read

INSTALL = {
    "model2vec": "pip install -c constraints.txt model2vec",
    "sentence_transformers": "pip install -r requirements-embed.txt",
}


class EmbeddingModel(NamedTuple):
    """A model that is loaded, and what tells it from others."""

    embedding: Embedding
    encode: Callable[[list[str]], np.ndarray]  # n texts to (n, columns) float32


def load_embedding_model(model: str) -> EmbeddingModel:
    """Load a model from a folder, without a network, or by its name on the hub.

    Raises
    ------
    ValueError
        If there is no such model, it cannot be loaded, or the package that it takes is not installed.
    """
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # or the hub's library says of every attempt that it failed
    folder = Path(model).expanduser()
    if folder.is_dir():
        os.environ["HF_HUB_OFFLINE"] = "1"  # before the libraries are imported, which ask the hub for this and that
        config, modules = _read_json(folder / "config.json"), _read_json(folder / "modules.json")
        name, revision = folder.resolve().name, None
    elif model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model:
        raise ValueError(f"--model {model}: no such folder; give that of a model, or a name such as all-mpnet-base-v2.")
    else:
        name = model if "/" in model else f"sentence-transformers/{model}"
        config, modules, revision = _ask_hub(name)
    try:
        load = _load_static if _is_static(config, modules) else _load_sentence_transformer
        return load(name, str(folder) if revision is None else name, revision)
    except ImportError as error:
        raise _not_installed(name, error) from None
    except Exception as error:  # whatever the libraries say of files that are missing, broken or of another kind
        raise ValueError(
            f"--model {model}: not loaded ({shortened(error)}); give the folder or the name of a model of "
            "sentence-transformers or model2vec."
        ) from None


def _not_installed(model: str, error: ImportError) -> ValueError:
    package = (error.name or "sentence_transformers").partition(".")[0]
    install = INSTALL.get(package, INSTALL["sentence_transformers"])
    return ValueError(f"--model {model}: takes the package {package}, which is not installed; `{install}`.")


def _read_json(path: Path | None) -> Any:
    """What a file of a model says; nothing where there is none."""
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise not_read(path, error) from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: not JSON; fetch the model anew.") from None


def _ask_hub(name: str) -> tuple[Any, Any, str]:
    """The configuration, the modules and the commit of a model on the hub, or of what was fetched before."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError as error:
        raise _not_installed(name, error) from None
    found: dict[str, Path] = {}
    for file in ("config.json", "modules.json"):
        try:
            found[file] = Path(hf_hub_download(name, file))
        except Exception as error:  # no network, no such model, one behind a login: the library's own words
            if found and isinstance(error, EntryNotFoundError):  # not every model has both
                continue
            raise ValueError(
                f"--model {name}: not found ({shortened(error)}); give the name of a model on the Hugging Face Hub, "
                "which takes a network, or the folder of one."
            ) from None
    return _read_json(found["config.json"]), _read_json(found.get("modules.json")), found["config.json"].parent.name


def _is_static(config: Any, modules: Any) -> bool:
    """Whether model2vec wrote these; sentence-transformers' own static models lie in a folder below."""
    match modules:
        case [{"path": "" | ".", "type": str(kind)}, *_] if kind.endswith(".StaticEmbedding"):
            return True
    return isinstance(config, dict) and config.get("model_type") == "model2vec"


def _load_static(name: str, place: str, revision: str | None) -> EmbeddingModel:
    from model2vec import StaticModel

    if revision is not None:
        from huggingface_hub import snapshot_download

        files = ["config.json", "modules.json", "model.safetensors", "tokenizer.json"]
        place = snapshot_download(name, revision=revision, allow_patterns=files)
    static = StaticModel.from_pretrained(place)
    arrays = [static.embedding, *(each for each in (static.weights, static.token_mapping) if each is not None)]
    said = ["model2vec", list(static.tokens), bool(static.normalize), static.max_length]
    columns = int(static.embedding.shape[1])
    return EmbeddingModel(
        Embedding(name, revision, _digest(arrays, said), columns, bool(static.normalize)),
        lambda texts: static.encode(texts, use_multiprocessing=False).astype(np.float32),
    )


def _load_sentence_transformer(name: str, place: str, revision: str | None) -> EmbeddingModel:
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    disable_progress_bar()  # of weights that are read; those of downloads stay
    model = SentenceTransformer(place, revision=revision, local_files_only=revision is None)
    modules = [type(module).__name__ for module in model]
    # What versions of the library name otherwise, such as the parameters, stays out: it would make one model two.
    pooling = [str(module.pooling_mode) for module in model if hasattr(module, "pooling_mode")]
    words = getattr(model.tokenizer, "get_vocab", dict)()  # by number, or, of tokenizers of the library's own, in order
    vocabulary = sorted(words.items()) if isinstance(words, dict) else list(words)
    prompt = model.prompts.get(model.default_prompt_name or "", "")
    said = ["sentence-transformers", modules, pooling, vocabulary, model.max_seq_length, prompt]
    arrays = [parameter.detach().float().cpu().numpy() for parameter in model.parameters()]

    def encode(texts: list[str]) -> np.ndarray:
        return model.encode(texts, show_progress_bar=False, convert_to_numpy=True).astype(np.float32)

    columns = encode(["one"]).shape[1]
    return EmbeddingModel(Embedding(name, revision, _digest(arrays, said), columns, "Normalize" in modules), encode)


def _digest(arrays: list[np.ndarray], said: list) -> str:
    """Digest of what a model computes with: its arrays in any order, in single precision, and what else is said."""
    numbers = []
    for array in arrays:
        values = np.ascontiguousarray(array, dtype=np.float32)
        numbers.append(xxhash.xxh3_128_hexdigest(repr(array.shape).encode() + b"\0" + values.tobytes()))
    return xxhash.xxh3_128_hexdigest(json.dumps([sorted(numbers), said]).encode())

"""Parameters that several stages share, written once and taken as one value."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import get_args, get_type_hints


def spell_out(stage: Callable[..., None]) -> Callable[..., None]:
    """Give a stage the signature that its `**parameters: Unpack[a TypedDict]` stands for.

    A keyword argument for each key, as if they were written one by one: the signature of a stage is the schema of
    params.yaml. Inside, the stage has them as one dictionary.

        @spell_out
        def cluster(*, tree: Path = Path("data/tree.npy"), **parameters: Unpack[ClusteringParameters]) -> None: ...
    """
    hints = get_type_hints(stage, include_extras=True)
    *own, shared = inspect.signature(stage).parameters.values()
    (keys,) = get_args(hints.pop(shared.name))
    keywords = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=hint)
        for name, hint in get_type_hints(keys, include_extras=True).items()
    ]
    signature = inspect.Signature([*keywords, *own], return_annotation=None)

    @wraps(stage)
    def spelled_out(**arguments: object) -> None:
        stage(**signature.bind(**arguments).arguments)

    spelled_out.__signature__ = signature
    spelled_out.__annotations__ = hints | {each.name: each.annotation for each in keywords}
    return spelled_out

"""Checkpoints on the hub: by a name such as user/name, or user/name@revision.

What was fetched before is opened from the hub's cache. Nothing is fetched unless that was allowed,
each time, in so many words: by an argument, or by --allow-download, which every command has. Where
the hub is, whose token is used and where its cache lies are huggingface-hub's own settings
(HF_ENDPOINT, HF_TOKEN, HF_HOME).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stepsight.checkpoint.format import META, CheckpointError

NAME = re.compile(r"(?P<repo>[\w][\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
ALLOWED = "STEPSIGHT_ALLOW_DOWNLOAD"  # "1" while a command runs that was given --allow-download


def local(name: str | Path, allow_download: bool = False) -> Path:
    """Where the checkpoint of that name lies here: a path as it is; of the hub its copy.

    Raises CheckpointError for one that cannot be fetched, or is none of stepsight's. A name that is
    neither a path nor in the cache is returned as a path, which is not there.
    """
    found = NAME.fullmatch(str(name))
    if found is None or Path(name).exists():
        return Path(name)
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalEntryNotFoundError

    api, where = HfApi(), found.groupdict()
    if not allow_download and os.environ.get(ALLOWED) != "1":
        try:
            copy = api.snapshot_download(
                where["repo"], revision=where["revision"], local_files_only=True
            )
        except LocalEntryNotFoundError:
            return Path(name)
        return Path(copy)
    with refusals(f"fetching {name}"):
        about = api.model_info(where["repo"], revision=where["revision"])
        if META not in {file.rfilename for file in about.siblings or ()}:
            raise CheckpointError(
                f"{name} is on the hub and holds no {META}: it is none of stepsight's. Fetch it "
                f"yourself, and read it with stepsight convert import FOLDER --out RUN."
            )
        return Path(api.snapshot_download(where["repo"], revision=where["revision"]))


def push(folder: Path, repo: str, private: bool, message: str) -> str:
    """Put what `folder` holds into a place of the hub, which is made if it is not there; returns
    its address. Raises CheckpointError if the hub does not take it."""
    from huggingface_hub import HfApi

    api = HfApi()
    with refusals(f"pushing to {repo}"):
        made = api.create_repo(repo, private=private, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=repo, commit_message=message)
    return str(made)


@contextmanager
def refusals(doing: str) -> Iterator[None]:
    """What the hub or the way to it refuses, as a CheckpointError of one line."""
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # of an HTTP library that is another one by version of the client
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{doing} failed: {reason} Check the name, the network, and HF_TOKEN if it is private."
        ) from None

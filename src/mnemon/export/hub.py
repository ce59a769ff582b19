"""Uploading an export to a repository on the Hugging Face hub."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError  # type: ignore[attr-defined]

from mnemon.errors import MnemonError


def push(folder: Path, repository: str) -> str:
    """Upload every file of `folder` in one commit, to a repository that is created private if it does not exist.

    Returns:
        The repository's address.

    Raises:
        MnemonError: no login, no write access, no connection, or a bad repository name.
    """
    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message="Concepts learned by mnemon")
    except LocalTokenNotFoundError as error:
        raise MnemonError("The hub wants to know who you are: run 'hf auth login' once, then export again.") from error
    except (HTTPError, OSError, ValueError) as error:  # ValueError: a bad repository name
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MnemonError(f"The hub did not take '{repository}': {reason} The files are in {folder}.") from error
    return str(address)

"""Where the bundles of a machine lie: the one it begins with, and a folder of others, found by their ids."""

from __future__ import annotations

from pathlib import Path

from daemon.errors import BundleError
from daemon.model import folder
from daemon.model.bundle import FILES, ID, Bundle

#: Folders that are looked at for an id; a shelf of more is no shelf of ours.
FOLDERS_MAX = 1000


class Shelf:
    """Bundles by id.

    Parameters
    ----------
    bundle : the folder of the bundle that runs where nothing is pinned
    bundles : the folder of the others, one folder each, whatever their names
    """

    def __init__(self, bundle: Path, bundles: Path) -> None:
        self._bundle = bundle
        self._bundles = bundles

    def find(self, bundle_id: str) -> Path:
        """Return the folder of a bundle; its contents are not looked at.

        Raises
        ------
        BundleError : it is not here; says where it was looked for
        """
        for path in self._folders(bundle_id):
            if _id_in(path) == bundle_id:
                return path
        raise BundleError(
            f"there is no bundle {bundle_id} in {self._bundles}, nor is it {self._bundle}; copy it to "
            f"{self._bundles / bundle_id}"
        )

    def put(self, bundle: Bundle) -> Path:
        """Make sure that a bundle lies here, under its id; return its folder. One that is damaged is replaced.

        Raises
        ------
        BundleError : it cannot be written
        """
        path = self._bundles / bundle.id
        if path.exists() and _is_whole(path, bundle.id):
            return path
        try:
            self._bundles.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BundleError(f"cannot make {self._bundles}: {error.strerror}; set [model] bundles") from error
        with folder.replacing(path, replace=True) as draft:
            for name in FILES:
                if (bundle.path / name).is_file():
                    folder.copy(bundle.path / name, draft / name)
            Bundle.load(draft)
        return path

    def _folders(self, bundle_id: str) -> list[Path]:
        """Return the places where an id can be, the likeliest first."""
        try:
            others = sorted(path for path in self._bundles.iterdir() if not path.name.startswith("."))[:FOLDERS_MAX]
        except OSError:
            others = []
        return [self._bundles / bundle_id, self._bundle, *others]


def _id_in(path: Path) -> str | None:
    try:
        return folder.read_text(path / ID).strip()
    except BundleError:
        return None


def _is_whole(path: Path, bundle_id: str) -> bool:
    try:
        return Bundle.load(path).id == bundle_id
    except BundleError:
        return False

"""The source archive is the tree: links stay links, so that what tests and pages say of folders holds in it, too."""

import os
import shutil

from setuptools import setup
from setuptools.command.sdist import sdist

LINKS = {
    "patc/dialects": "../dialects",
    "patc/passes": "../passes",
    "patc/tools": "../tools",
    "runtime/patc": "../patc",
}


class Archive(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        for link, target in LINKS.items():
            place = os.path.join(base_dir, link)
            shutil.rmtree(place, ignore_errors=True)  # copies, of packages
            os.symlink(target, place)


setup(cmdclass={"sdist": Archive})

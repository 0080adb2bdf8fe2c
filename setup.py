"""All metadata of the distribution `scipion-em-solvar`, which holds the Scipion plugin and the engine.

The base requirements are what the plugin, and the engine's contract and figures, import themselves; a Scipion has them
all. The engine usually lives in an environment of its own: what it needs is the extra `engine`, listed in
`solvar_engine/requirements.txt`; versions are pinned in `solvar_engine/constraints.txt` alone. Scipion is no base
requirement, so that it stays out of there.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent


def read_version() -> str:
    """Return `__version__` of the engine from its text: before installation it cannot be imported."""
    source = (HERE / "solvar_engine" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise RuntimeError("solvar_engine/__init__.py has no line of the form __version__ = \"1.2.3\"")
    return match.group(1)


def read_requirements() -> list:
    """Return the lines of the engine's requirements that are not comments."""
    text = (HERE / "solvar_engine" / "requirements.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


TEST = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "starfile>=0.5.8",
    "playwright>=1.50",
    "axe-playwright-python>=0.1.4",
    "triton>=3.5; platform_system == 'Linux'",
    "ruff>=0.12",
    "mypy>=1.11",
    "setuptools>=70.1",
]

setup(
    name="scipion-em-solvar",
    version=read_version(),
    description="Principal motions of a molecule from the particles of a cryo-EM refinement",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="GPL-3.0-or-later",
    license_files=["LICENSE"],
    keywords="cryo-em heterogeneity covariance principal-component-analysis structural-biology",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Bio-Informatics",
    ],
    packages=find_packages(include=["scipion_em_solvar", "solvar_*"]),
    package_data={
        "solvar_engine": ["requirements.txt", "constraints.txt", "explorer/web/*"],
        "solvar_plugin": ["protocols.conf", "*.png", "templates/*.json.template"],
    },
    python_requires=">=3.8",
    install_requires=["numpy", "scipy", "mrcfile", "matplotlib"],
    extras_require={"engine": read_requirements(), "scipion": ["scipion-em>=3.11"], "test": TEST},
    entry_points={
        "console_scripts": ["solvar-engine=solvar_engine.cli:main"],
        "pyworkflow.plugin": ["solvar_plugin=solvar_plugin"],
    },
    zip_safe=False,
)

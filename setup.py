"""All metadata of the distribution `scipion-em-solvar`.

Ranges stand here, pins in `solvar_engine/constraints.txt`. The base requirements stay light, because the
engine usually lives in an environment of its own: what it needs is the extra `engine`.
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


ENGINE = [
    "torch>=2.11",
    "numpy>=1.26",
    "scipy>=1.11",
    "numba>=0.60",
    "mrcfile>=1.5",
    "scikit-learn>=1.4",
    "umap-learn>=0.5.6",
    "matplotlib>=3.8",
    "tqdm>=4.66",
]
TEST = [
    "pytest>=8",
    "starfile>=0.5.8",
    "triton>=3.5; platform_system == 'Linux'",
    "ruff>=0.12",
    "mypy>=1.11",
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
    packages=find_packages(include=["solvar_engine", "solvar_engine.*"]),
    package_data={"solvar_engine": ["constraints.txt"]},
    python_requires=">=3.8",
    install_requires=["numpy"],
    extras_require={"engine": ENGINE, "test": TEST},
    entry_points={"console_scripts": ["solvar-engine=solvar_engine.cli:main"]},
    zip_safe=False,
)

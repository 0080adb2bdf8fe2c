"""The real project window, driven as a user drives it, on the display of DISPLAY; a picture of every step is kept.

The pictures go to the folder of SOLVAR_TEST_OUTPUT (test-output in the current folder if it is not set).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from pyworkflow.tests import BaseTest, setupTestProject

from solvar_engine.contract.angles import relion_to_rotation
from solvar_engine.contract.star import StarFile
from solvar_plugin.protocols import SolvarProtReconstruct, SolvarProtRefine, SolvarProtSelectParticles
from solvar_plugin.protocols.covariance_form import FIXED_RANK
from solvar_plugin.protocols.select_form import BY_DISTANCE
from solvar_plugin.tests import gui_results
from solvar_plugin.tests.data_sets import import_particles, simulate

PICTURES = Path(os.environ.get("SOLVAR_TEST_OUTPUT") or "test-output").absolute()
PIXEL_SIZE = 6.0
PARTICLES = 600
# longer than the limit that the visit has for itself
LIMIT_SECONDS = 450
LABEL = "covariance analysis"
OUTPUTS = ["outputEigenvolumes", "outputMean", "outputParticles", "outputStates"]
ENTRIES = {
    "Explorer": {"displayExplorer"},
    "Components": {"displayEigenvalues", "displayRank"},
    "Latent space": {"displayLatent", "displayHistograms"},
    "Particles": {"displayParticles"},
    "Resolution and noise": {"displayFsc", "displayNoise", "displayProgress"},
    "Volumes": {"displaySlices", "displayMontage", "displaySurface", "displayChimerax"},
    "Motions": {"displayMotion", "displayMovie"},
    "Report": {"displayReport"},
}
# what the title of a plot window must match, and how many pictures and curves it must have at least
PLOTS = {
    "displayEigenvalues": ("Eigenvalues", 2),
    "displayRank": ("Gain of each component", 1),
    "displayLatent": (r"component 1.* and component 2", 3),
    "displayParticles": ("outliers", 1),
    "displayHistograms": ("component", 2),
    "displayFsc": ("Resolution", 1),
    "displayNoise": ("Noise", 1),
    "displayProgress": ("finished", 1),
    "displaySlices": ("Mean map", 6),
    "displayMontage": ("Mean map", 20),
    "displaySurface": ("Mean map", 3),
    "displayMotion": ("Component 1", 12),
    "displayMovie": ("Component 1", 1),
}
FURTHER_PLOTS = {
    "displayPoseChanges": ("Changes of orientations", 2),
    "displayDirections": ("Distribution of orientations", 3),
    "displayStateSurfaces": ("Surfaces of all states", 2),
    "displayStateSlices": ("Central slices of all states", 2),
    "displayStateTable": ("Images and resolution", 2),
    "displayStateFsc": ("Correlation of half-maps", 1),
    "displayLatent": (r"component 1.* and component 2", 3),
    "displaySurface": ("Cluster 1: surface", 3),
}


class TestGui(BaseTest):
    """One visit to the project window, looked at from many sides."""

    @classmethod
    def setUpClass(cls):
        if not os.environ.get("DISPLAY"):
            raise AssertionError("The project window needs a screen: set DISPLAY, or run scripts/test_plugin.sh.")
        setupTestProject(cls)
        cls.data = simulate(
            Path(os.getcwd()) / "data", phantom="hinge", particles=PARTICLES, box=32, pixel_size=PIXEL_SIZE, snr=1,
            rotation_error=3, shift_error=1,
        )  # fmt: skip
        cls.imported = import_particles(cls, cls.data / "particles.star", PIXEL_SIZE)
        cls.refined = cls.finished(
            SolvarProtRefine, cls.imported, rankChoice=FIXED_RANK, rank=2, numberOfClusters=2, numberOfThreads=2
        )
        cls.finished(SolvarProtReconstruct, cls.refined, numberOfStates=2, numberOfThreads=2)
        cls.finished(SolvarProtSelectParticles, cls.refined, way=BY_DISTANCE, cluster=1, number=200)
        cls.facts = visit(Path(cls.proj.getPath()))

    @classmethod
    def finished(cls, kind, source, **values):
        """Run a protocol on the particles that another one has put out."""
        protocol = cls.newProtocol(kind, **values)
        protocol.inputParticles.set(source)
        protocol.inputParticles.setExtended("outputParticles")
        cls.launchProtocol(protocol)
        return protocol

    def test_orientations_become_better(self):
        truth = StarFile.read(self.data / "truth" / "particles.star").particles
        names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")
        numbers = truth.numbers(*names)
        rotations = relion_to_rotation(*(numbers[name] for name in names))
        before, after = (mean_error(one.outputParticles, rotations) for one in (self.imported, self.refined))
        self.assertLess(after, 0.75 * before)
        self.assertIn("Orientations turned by", " ".join(self.refined.summary()))

    def test_project_window(self):
        self.assertTrue(self.facts["optimised"], "Scipion starts its windows with python -O")
        self.assertTrue(self.facts["title"].startswith("TestGui "))

    def test_protocol_is_in_both_trees(self):
        places = {
            "Protocols SPA": ["3D", "Analysis", "Heterogeneity"],
            "Flexibility Hub": ["Landscape estimation", "Heterogeneous reconstruction", "SOLVAR"],
        }
        for view, place in places.items():
            (found,) = self.facts["tree"][view]
            self.assertEqual(found["path"][:-1], [view, *place])
            self.assertTrue(found["path"][-1].endswith(f"- {LABEL}"))
            self.assertFalse([tag for tag in found["tags"] if "disabled" in tag])

    def test_form(self):
        form = self.facts["form"]
        # the output of the selected run is taken as input
        self.assertEqual(form["suggested"], "import.outputParticles")
        labels = {
            "inputParticles": "Input particles",
            "symmetry": "Symmetry",
            "inputMask": "Mask (optional)",
            "inputFocusMask": "Focus mask (optional)",
            "rankChoice": "Number of components",
            "boxSize": "Working box (px)",
            "numberOfClusters": "Number of clusters",
        }
        self.assertEqual({name: row["label"] for name, row in form["rows"]["Normal"]["Input"].items()}, labels)
        self.assertEqual(form["rows"]["Normal"]["Input"]["rankChoice"]["value"], "automatic")
        # what belongs to a choice comes with it
        self.assertEqual(
            {name: form["rows"]["Advanced"]["Input"][name]["label"] for name in ("rank", "opticsStar")},
            {"rank": "Fixed number", "opticsStar": "STAR file for the optics"},
        )
        method = form["rows"]["Advanced"]["Method"]
        values = [method[name]["value"] for name in ("objective", "projector", "invertContrast", "scratchFolder")]
        self.assertEqual(values, ["maximum likelihood", "trilinear", "find out", ""])

    def test_everything_has_help(self):
        runs = self.facts["runs"]
        forms = [self.facts["form"]["rows"]["Advanced"], self.facts["viewer"]["rows"]["Viewer"]]
        for seen in runs.values():
            forms += [*seen["form"].values(), *seen.get("viewer", {"rows": {}})["rows"].values()]
        self.assertEqual(len(forms), 2 + len(runs) + 2)
        for section, rows in (item for form in forms for item in form.items()):
            for name, row in rows.items():
                # the help of a line is beside its head, not beside its parts
                if row["buttons"]:
                    self.assertIn("Help", row["buttons"], f"{section}, {name}")
        self.assertIn("The molecule may be symmetric:", self.facts["help"])
        self.assertEqual([line for line in self.facts["help"].splitlines() if line.startswith(" ")], [])

    def test_nothing_is_cut_off(self):
        self.assertEqual({place: found for place, found in self.facts["cut_off"].items() if found}, {})
        self.assertGreater(len(self.facts["cut_off"]), len(ENTRIES))

    def test_wizards(self):
        wizards = self.facts["wizards"]
        # images of 32 px of 6 Angstrom
        self.assertEqual(wizards["boxes"], [["32", "6.00", "12.0"]])
        self.assertEqual(wizards["boxSize"], "32")
        self.assertRegex(wizards["opticsStar"], r"^/.*/data/particles\.star$")

    def test_impossible_numbers_are_refused(self):
        refused = self.facts["refused"]
        self.assertIn(f"'Number of components' is 5000, but {PARTICLES} particles support at most 30", refused["5000"])
        self.assertIn("'Number of components' is 0 but must be at least 1", refused["0"])
        for text in ("two", ""):
            self.assertIn("Fixed number", refused[text])

    def test_progress_is_shown(self):
        stages = [re.match(r"Stage (\d+) of (\d+): ", text) for text in self.facts["summaries"]]
        found = next(match for match in stages if match)
        self.assertLessEqual(int(found.group(1)), int(found.group(2)))

    def test_run(self):
        run = self.facts["run"]
        self.assertEqual((run["status"], run["error"]), ("finished", ""))
        # with wrong orientations, some particles may look like outliers
        self.assertEqual([name for name in run["outputs"] if name != "outputOutliers"], OUTPUTS)
        some = r"(\d+ of them (an )?outliers?, )?"
        self.assertRegex(run["summary"], rf"^(Mind: .*\. )?{PARTICLES} particles, {some}mean at ")
        for component in (1, 2):
            self.assertRegex(run["summary"], rf"(?m)^Component {component}: eigenvalue [\d.]+ \(\d+% of the variance\)")
        self.assertIn("maximum likelihood with 2 components", run["methods"])
        self.assertIn("Yadgar", run["methods"])

    def test_form_of_the_run_shows_what_was_run(self):
        rows = self.facts["form_of_run"]
        values = {name: rows[name]["value"] for name in ("inputParticles", "rankChoice", "rank", "numberOfClusters")}
        expected = {"inputParticles": "import.outputParticles", "rankChoice": "fixed", "rank": "2"}
        self.assertEqual(values, {**expected, "numberOfClusters": "3"})

    def test_form_of_the_viewer(self):
        viewer = self.facts["viewer"]
        self.assertEqual(viewer["viewer"], "SolvarCovarianceViewer")
        sections = {
            section: {name for name, row in rows.items() if "Visualize" in row["buttons"]}
            for section, rows in viewer["rows"]["Viewer"].items()
        }
        self.assertEqual(sections, ENTRIES)

    def test_every_entry_opens_what_it_says(self):
        entries = self.facts["entries"]
        self.assertEqual(set(entries), set().union(*ENTRIES.values()))
        for name, (title, axes) in PLOTS.items():
            self.assertEqual(list(entries[name]), ["plots"], name)
            (window,) = entries[name]["plots"]
            self.assertRegex(window["title"], title, name)
            self.assertGreaterEqual(window["axes"], axes, name)
        (page,) = entries["displayReport"].pop("pages")
        self.assertRegex(page, r"^file:///.*SolvarProtCovariance/extra/run/report\.html$")
        (page,) = entries["displayExplorer"].pop("pages")
        self.assertRegex(page, r"^explorer of .*SolvarProtCovariance/extra/run$")
        self.assertRegex(entries["displayChimerax"].pop("chimerax"), r"open \S*mean\.mrc")
        self.assertEqual([entries[f"display{name}"] for name in ("Report", "Chimerax", "Explorer")], [{}, {}, {}])

    def test_results_of_the_other_protocols(self):
        runs = self.facts["runs"]
        self.assertEqual(set(runs), set(gui_results.ENTRIES))
        for protocol, seen in runs.items():
            self.assertEqual(tuple(seen["entries"]), gui_results.ENTRIES[protocol])
            for name, came_up in seen["entries"].items():
                self.assertEqual(list(came_up), ["plots"], name)
                (window,) = came_up["plots"]
                title, axes = FURTHER_PLOTS[name]
                self.assertRegex(window["title"], title, name)
                self.assertGreaterEqual(window["axes"], axes, name)
            # what came up from another program only the pictures show; a message would be a dialog
            outputs = {name: list(came_up) for name, came_up in seen["outputs"].items()}
            self.assertEqual(outputs, {name: ["type"] for name in gui_results.OUTPUTS[protocol]})
        self.assertIn("Cluster 1: ", runs["SolvarProtReconstruct"]["summary"])
        self.assertIn(f"200 of {PARTICLES} particles", runs["SolvarProtSelectParticles"]["summary"])

    def test_pictures(self):
        names = self.facts["pictures"]
        self.assertEqual(names, sorted(path.name for path in PICTURES.glob("gui_*.png")))
        contents = set()
        for name in names:
            with Image.open(PICTURES / name) as picture:
                self.assertEqual(list(picture.size), self.facts["screen"], name)
                # a window that was not drawn, or no window at all, has next to no colours
                sample = picture.convert("RGB").reduce(4)
                self.assertGreater(len(sample.getcolors(sample.width * sample.height)), 200, name)
                contents.add(picture.tobytes())
        self.assertEqual(len(contents), len(names), "two pictures are the same")


def mean_error(particles, rotations):
    """Mean angle in degrees between the orientations of particles and true ones, shape (n, 3, 3)."""
    found = np.array([particle.getTransform().getMatrix()[:3, :3] for particle in particles])
    cosine = (np.einsum("nij,nij->n", found, rotations) - 1) / 2
    return np.rad2deg(np.arccos(np.clip(cosine, -1, 1))).mean()


def visit(project):
    """Make the visit in a process of its own, as Scipion starts its windows, and return what was seen there."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for old in PICTURES.glob("gui_*"):
        old.unlink()
    facts, log = PICTURES / "gui_facts.json", PICTURES / "gui_session.log"
    # when to look at a run is up to the visit
    environment = {**os.environ, "SCIPION_NOTIFY": "False", "SCIPION_GUI_CANCEL_AUTO_REFRESH": "True"}
    # else plots would have no windows
    environment.pop("MPLBACKEND", None)
    command = [sys.executable, "-O", "-m", "solvar_plugin.tests.gui_session", str(project), str(PICTURES), str(facts)]
    with open(log, "w") as stream:
        session = subprocess.Popen(
            command, cwd=project, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            start_new_session=True,
        )  # fmt: skip
        try:
            end = f"exit code {session.wait(LIMIT_SECONDS)}"
        except subprocess.TimeoutExpired:
            end = f"no end after {LIMIT_SECONDS} s"
        finally:
            stop(session)
    if end != "exit code 0" or not facts.exists():
        raise AssertionError(f"The visit to the project window: {end}. Its log:\n{log.read_text()[-5000:]}")
    seen = json.loads(facts.read_text(encoding="utf-8"))
    if seen["error"]:
        raise AssertionError(f"The visit to the project window broke off: {seen['error']}")
    return seen


def stop(session):
    """Kill what is left of a session, all that it started included."""
    try:
        os.killpg(session.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    session.wait()

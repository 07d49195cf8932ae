import pytest

from tests import tiers

pytest_plugins = ["pytester"]

MARKED = """
import pytest

pytestmark = pytest.mark.study

@pytest.fixture
def launch():
    return None

@pytest.fixture
def begun(launch):
    return None

def test_by_its_file(): pass

def test_with_the_launcher_in_a_study_file(begun): pass

@pytest.mark.launcher
def test_by_its_own_mark(): pass

@pytest.mark.slow
def test_slow_in_a_study_file(): pass

@pytest.mark.conformance
@pytest.mark.parametrize("name", ["quick", pytest.param("long", marks=pytest.mark.slow)])
def test_of_every_name(name): pass
"""
UNMARKED = """
import pytest

@pytest.fixture
def launch():
    return None

@pytest.fixture
def begun(launch):
    return None

def test_of_nothing(): pass

def test_with_the_launcher(launch): pass

def test_with_a_study_of_the_launcher(begun): pass

@pytest.mark.fault
def test_with_a_fault(launch): pass
"""
PROCESSES = """
import contextlib, multiprocessing.util, os, subprocess, sys
import pytest

def test_runs_a_command():
    subprocess.run([sys.executable, "-c", ""], check=True)

@pytest.mark.conformance
def test_hides_what_it_runs():
    with contextlib.suppress(Exception):
        subprocess.run(["no-such-program"], check=False)

def test_forks():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def test_spawns():
    true = os.fsencode(sys.executable)
    os.waitpid(multiprocessing.util.spawnv_passfds(true, [true, b"-c", b""], []), 0)

@pytest.fixture(scope="module")
def server():
    subprocess.run([sys.executable, "-c", ""], check=True)
    return "server"

@pytest.fixture
def ended_by_a_command():
    yield
    subprocess.run([sys.executable, "-c", ""], check=True)

@pytest.mark.launcher
def test_that_may(server):
    subprocess.run([sys.executable, "-c", ""], check=True)

def test_finds_a_server_running(server): pass

def test_ends_with_a_command(ended_by_a_command): pass

def test_starts_nothing(): pass

def test_asks_git():
    sys.audit("subprocess.Popen", "/usr/bin/git", ["/usr/bin/git", "status"], None, None)
"""


@pytest.fixture
def selected(pytester: pytest.Pytester):
    """Return a function that returns the names of the tests selected by `-m` in these modules."""

    def select(tier: str) -> set[str]:
        run = pytester.inline_run("-p", "tests.tiers", "-m", tier, "-W", "ignore")
        return {report.nodeid.partition("::")[2] for report in run.getreports("pytest_runtest_logreport")}

    pytester.makepyfile(test_marked=MARKED, test_unmarked=UNMARKED)
    return select


@pytest.mark.parametrize(
    ("tier", "names"),
    [
        ("unit", {"test_of_nothing"}),
        ("conformance", {"test_of_every_name[quick]"}),
        ("study", {"test_by_its_file"}),
        (
            "launcher",
            {
                "test_by_its_own_mark",
                "test_with_the_launcher_in_a_study_file",
                "test_with_the_launcher",
                "test_with_a_study_of_the_launcher",
            },
        ),
        ("slow", {"test_slow_in_a_study_file", "test_of_every_name[long]"}),
        ("fault", {"test_with_a_fault"}),
    ],
)
def test_each_test_is_in_one_tier_by_its_nearest_mark_or_its_fixtures(selected, tier, names):
    assert selected(tier) == names


@pytest.mark.parametrize(("chosen", "errors"), [("unit", 0), ("slow", 0), ("unit or conformance", 0), ("study", 1)])
def test_a_file_without_tests_of_the_chosen_tiers_is_not_imported(pytester, chosen, errors):
    pytester.makepyfile(test_marked="import pytest\npytestmark = pytest.mark.study\nraise RuntimeError")
    run = pytester.inline_run("-p", "tests.tiers", "-m", chosen, "-W", "ignore")
    assert sum(report.failed for report in run.getreports("pytest_collectreport")) == errors


def test_every_tier_is_declared_as_a_mark(pytestconfig):
    declared = [line.partition(":")[0] for line in pytestconfig.getini("markers")]
    assert [name for name in declared if name in tiers.TIERS] == list(tiers.TIERS)


@pytest.mark.launcher
def test_a_unit_test_that_starts_a_process_fails_and_names_the_command(pytester):
    pytester.makepyfile(PROCESSES)
    reports = pytester.inline_run("-p", "tests.tiers", "-W", "ignore").getreports("pytest_runtest_logreport")
    failed = {report.nodeid.partition("::")[2]: str(report.longrepr) for report in reports if report.failed}
    assert {name: message.partition(" (")[0] for name, message in failed.items()} == {
        "test_runs_a_command": "a unit test started a process",
        "test_hides_what_it_runs": "a conformance test started a process",
        "test_forks": "a unit test started a process",
        "test_spawns": "a unit test started a process",
        "test_finds_a_server_running": "a unit test started a process",
        "test_ends_with_a_command": "a unit test started a process",
    }
    assert "subprocess.Popen ['no-such-program']" in failed["test_hides_what_it_runs"]
    assert "os.fork" in failed["test_forks"]
    assert "in its fixture server" in failed["test_finds_a_server_running"]

"""Releases by hand and by run: which environments, which versions, back again, and off."""

from pathlib import Path

from acceptance.tiny import Tiny, free_ports, sentence


def _releases(run: dict[str, object]) -> dict[str, tuple[str, str | None]]:
    found = run["releases"]
    assert isinstance(found, list)
    return {r["environment"]: (r["status"], r["reason"]) for r in found}


def test_a_green_commit_replaces_the_release(served: Tiny) -> None:
    """A second commit goes through staging to production, whose answers name it and carry the new model."""
    first = served.serving("production")
    served.commit(accuracy=0.95)
    run = served.run()
    assert run["status"] == "passed"
    assert _releases(run) == {"staging": ("serving", None), "production": ("serving", None)}
    assert [r["url"] for r in run["releases"]] == [f"http://127.0.0.1:{port}" for port in served.ports.values()]
    answer = served.ask("production")
    assert answer is not None
    assert (answer.release, answer.body) == (run["version"], b'{"accuracy": 0.95}')
    assert first != run["version"]


def test_to_releases_up_to_one_environment(tiny: Tiny) -> None:
    """`--to staging` leaves production alone and passes; the same version then goes on by `deploy`."""
    run = tiny.run("--to", "staging")
    assert (run["status"], _releases(run)) == ("passed", {"staging": ("serving", None)})
    assert (tiny.serving("staging"), tiny.serving("production")) == (run["version"], None)
    said = tiny("deploy", run["version"], "production")
    assert f"{run['version']} is serving in production at http://127.0.0.1:" in said.out
    assert tiny.serving("production") == run["version"]


def test_no_deploy_releases_nothing(tiny: Tiny) -> None:
    """`--no-deploy` builds, tests and gates; nothing is started to stay, and no router."""
    run = tiny.run("--no-deploy")
    assert (run["status"], run["releases"]) == ("passed", [])
    assert [g["verdict"] for g in run["gates"]] == ["pass"]
    assert tiny.command.processes() == {}


def test_step_runs_only_what_it_needs(tiny: Tiny) -> None:
    """`--step train` runs check and train; the rest is skipped as not asked for, and nothing is released."""
    run = tiny.run("--step", "train")
    ran = {s["name"]: (s["status"], s["reason"]) for s in run["steps"]}
    assert {name for name, (status, _) in ran.items() if status == "passed"} == {"check", "train"}
    assert ran["unit"] == ("skipped", "not asked for")
    assert (run["status"], run["releases"]) == ("passed", [])
    version = run["version"]
    assert "no package" in tiny("deploy", version, "staging", code=2).err


def test_a_commit_on_another_branch_is_not_released(served: Tiny) -> None:
    """Environments without `branches` take the default branch only: skipped with the reason, exit code 0."""
    before = served.serving("production")
    served.repo.git("checkout", "--quiet", "-b", "idea")
    sha = served.commit(accuracy=0.95)
    run = served.run()
    reason = f"commit {sha[:7]} is not on main"
    assert run["status"] == "passed"
    assert {status for status, _ in _releases(run).values()} == {"skipped"}
    assert reason in str(_releases(run)["staging"][1])
    assert served.serving("production") == served.serving("staging") == before
    served("deploy", run["version"], "staging", code=2).refuses(reason)


def test_branches_of_an_environment_choose_what_is_released_there(tiny: Tiny) -> None:
    """With `branches: ["release/*"]` production takes a release branch, and is skipped on main."""
    tiny.edit("penstock.yaml", "needs: staging, port", 'needs: staging, branches: ["release/*"], port')
    tiny.commit()
    assert _releases(tiny.run())["production"][0] == "skipped"
    tiny.repo.git("checkout", "--quiet", "-b", "release/1")
    assert _releases(tiny.run())["production"] == ("serving", None)


def test_an_older_version_is_deployed_again(served: Tiny) -> None:
    """`deploy VERSION ENV` of a version that passed before, by its beginning or with its digest, without a run."""
    first = str(served.serving("production"))
    served.commit(accuracy=0.95)
    second = served.run()
    served("deploy", first, "production")
    assert (served.serving("production"), served.serving("staging")) == (first, second["version"])
    digest = second["package"]["digest"]
    served("deploy", f"{second['version']}@{digest[:12]}", "production")
    assert served.serving("production") == second["version"]
    assert len(served("runs", "--json").json) == 2


def test_a_version_that_a_gate_stopped_is_not_deployed(served: Tiny) -> None:
    """A red gate stands before `deploy` too."""
    before = served.serving("production")
    served.commit(accuracy=0.5)
    red = served.run(code=1)
    assert red["gates"][0]["verdict"] == "fail"
    served("deploy", red["version"], "production", code=2).refuses("did not pass", "not deployed", f"run {red['run']}")
    assert served.serving("production") == before


def test_what_cannot_be_deployed_is_refused(served: Tiny) -> None:
    """An unknown version, digest or environment, and a beginning that fits two versions: one sentence each."""
    first = str(served.serving("production"))
    served.commit()
    served.run("--no-deploy")
    served("deploy", "9.9", "production", code=2).refuses('no package of version "9.9"', first)
    served("deploy", f"{first}@0000", "production", code=2).refuses("no package of version")
    served("deploy", first, "nowhere", code=2).refuses('no environment "nowhere"', "staging, production")
    served("deploy", "0.0.0", "production", code=2).refuses("more than one version")
    served("deploy", first, "production", "--project", "other", code=2).refuses('no project "other"', "tiny")


def test_rollback_goes_back_once(served: Tiny) -> None:
    """The release before serves again at once; a second rollback has nothing earlier and says so."""
    first = served.serving("production")
    served.commit(accuracy=0.95)
    second = served.run()["version"]
    said = served("rollback", "production")
    assert f"{first} is serving in production" in said.out
    assert (served.serving("production"), served.serving("staging")) == (first, second)
    served("rollback", "production", code=2).refuses("production has no earlier release to go back to")
    assert served.serving("production") == first


def test_rollback_without_an_earlier_release_is_refused(served: Tiny) -> None:
    """The first release of an environment has nothing before it; nor has an environment that does not exist."""
    first = served.serving("production")
    served("rollback", "production", code=2).refuses("production has no earlier release to go back to")
    served("rollback", "nowhere", code=2).refuses("nowhere")
    assert served.serving("production") == first


def test_stop_ends_one_environment_then_all(served: Tiny) -> None:
    """`stop ENV` ends that one and leaves the others; a bare `stop` leaves no process; then nothing was serving."""
    version = served.serving("production")
    assert served("stop", "production").out.split() == ["stopped", "production", version]
    assert (served.serving("production"), served.serving("staging")) == (None, version)
    assert served("stop").out.split() == ["stopped", "staging", version]
    assert served.command.processes() == {}
    assert served("stop").out == "nothing was serving\n"
    served("rollback", "production", code=2).refuses("production")


def test_what_was_stopped_is_released_again_by_a_run(served: Tiny) -> None:
    """After `stop` the same commit comes back, all from the cache."""
    version = served.serving("production")
    served("stop")
    run = served.run()
    assert {s["name"] for s in run["steps"] if not s["cached"]} <= {"package"}
    assert served.serving("production") == version


def test_two_files_in_one_repository_are_two_projects(served: Tiny) -> None:
    """`--file other.yaml` is a project of its own: verbs then ask which one, and both serve beside each other."""
    text = (served.repo.folder / "penstock.yaml").read_text()
    for old, new in zip(served.ports.values(), free_ports(2), strict=True):
        text = text.replace(str(old), str(new))
    served.repo.put("other.yaml", text.replace("name: tiny", "name: other"))
    served.commit("a second pipeline")
    run = served.run("--file", "other.yaml", "--to", "staging")
    assert (run["project"], run["status"]) == ("other", "passed")
    served("rollback", "staging", code=2).refuses("more than one project", "--project", "tiny", "other")
    served("stop", "staging", "--project", "other")
    assert served.serving("staging") is not None
    assert {r["project"] for r in served("runs", "--json").json} == {"tiny", "other"}
    assert {r["project"] for r in served("runs", "--json", "--project", "tiny").json} == {"tiny"}


def test_two_projects_do_not_share_a_port(served: Tiny) -> None:
    """A second project on the same port is rejected with the name of who has it, and the first goes on."""
    before = served.serving("staging")
    text = (served.repo.folder / "penstock.yaml").read_text()
    served.repo.put("other.yaml", text.replace("name: tiny", "name: other"))
    served.commit("the same ports")
    said = served("run", "--file", "other.yaml", code=1)
    sentence(said.out, f"port {served.ports['staging']} belongs to staging of tiny")
    assert served.serving("staging") == before


def test_a_repository_elsewhere_is_run_by_its_address(tiny: Tiny, tmp_path: Path) -> None:
    """`run URL` outside of any checkout: another project than the checkout, as its origin is another."""
    bare = tmp_path / "bare.git"
    tiny.repo.git("clone", "--quiet", "--bare", ".", str(bare))
    said = tiny.command("run", bare.as_uri(), "--json", "--to", "staging", cwd=tmp_path, code=0)
    assert said.json["version"] == tiny.serving("staging")

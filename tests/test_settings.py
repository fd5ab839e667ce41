from __future__ import annotations

import dataclasses
import json
import math

import pytest

import sqlprobe
from sqlprobe.model import RULES
from sqlprobe.settings import Settings, SettingsError, config_file, resolve

SECONDS = "a number of seconds above 0 is needed"
NAMES = [field.name for field in dataclasses.fields(Settings)]


def error_of(**given):
    with pytest.raises(SettingsError) as raised:
        Settings(**given)
    return str(raised.value)


def env_error(**environ):
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(environ={f"SQLPROBE_{name}": text for name, text in environ.items()})
    return str(raised.value)


def from_env(base=None, **environ):
    return Settings.from_env(base, {f"SQLPROBE_{name}": text for name, text in environ.items()})


def test_defaults_are_those_of_the_documentation():
    assert {
        "enabled": True,
        "slow_seconds": 0.1,
        "n_plus_one_threshold": 2,
        "call_sites": "first",
        "packages": (),
        "path_map": {},
        "scope_window_seconds": 60.0,
        "finding_ttl_seconds": 86_400.0,
        "auto_scope": False,
        "redact": "literals",
        "release": "",
        "disabled_rules": (),
    }.items() <= {name: getattr(Settings(), name) for name in NAMES}.items()


@pytest.mark.parametrize("name", ["slow_seconds", "scope_window_seconds", "finding_ttl_seconds"])
@pytest.mark.parametrize("value", [0, -1, -0.5, math.nan, math.inf, True, "0.1", None])
def test_seconds_are_a_positive_number(name, value):
    assert f"Settings({name}={value!r}): {SECONDS}" == error_of(**{name: value})


@pytest.mark.parametrize("value", [1, 0, -2, 2.0, True, "2", None])
def test_threshold_is_a_whole_number_from_2_on(value):
    assert f"Settings(n_plus_one_threshold={value!r}): a whole number from 2 on is needed" == error_of(
        n_plus_one_threshold=value
    )


@pytest.mark.parametrize("name", ["enabled", "auto_scope"])
@pytest.mark.parametrize("value", [1, 0, "yes", None])
def test_switches_are_true_or_false(name, value):
    assert f"Settings({name}={value!r}): True or False is needed" == error_of(**{name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"call_sites": "some"}, "Settings(call_sites='some'): one of 'off', 'first', 'all' is needed"),
        ({"call_sites": ["all"]}, "Settings(call_sites=['all']): one of 'off', 'first', 'all' is needed"),
        ({"redact": "all"}, "Settings(redact='all'): one of 'literals', 'text' is needed"),
        ({"packages": "shop"}, "Settings(packages='shop'): a tuple of strings, such as ('shop',) is needed"),
        ({"packages": (1,)}, "Settings(packages=(1,)): a tuple of strings, such as ('shop',) is needed"),
        ({"packages": None}, "Settings(packages=None): a tuple of strings, such as ('shop',) is needed"),
        ({"packages": 5}, "Settings(packages=5): a tuple of strings, such as ('shop',) is needed"),
        (
            {"disabled_rules": "n-plus-one"},
            "Settings(disabled_rules='n-plus-one'): a tuple of strings, such as ('slow-statement',) is needed",
        ),
        (
            {"disabled_rules": ("n-plus-won",)},
            "Settings(disabled_rules='n-plus-won'): the id of a rule; did you mean 'n-plus-one'? is needed",
        ),
        ({"path_map": [("a", "b")]}, "Settings(path_map=[('a', 'b')]): a dict of strings, such as {'/srv/app/': ''} is needed"),
        ({"path_map": {"a": 1}}, "Settings(path_map={'a': 1}): a dict of strings, such as {'/srv/app/': ''} is needed"),
        ({"release": 7}, "Settings(release=7): a string is needed"),
    ],
)  # fmt: skip
def test_wrong_value_is_told_with_what_would_do(given, message):
    assert message == error_of(**given)


def test_unknown_rule_without_a_near_one_lists_them():
    message = error_of(disabled_rules=("zzz",))

    assert all(rule in message for rule in RULES)


def test_unknown_setting_is_an_error_of_python():
    with pytest.raises(TypeError, match="slow_second"):
        Settings(slow_second=1)


def test_settings_error_is_both_ours_and_a_value_error():
    assert (True, True) == (issubclass(SettingsError, sqlprobe.SqlprobeError), issubclass(SettingsError, ValueError))


@pytest.mark.parametrize("given", [["shop", "billing"], ("shop", "billing"), {"shop": 1, "billing": 2}.keys()])
def test_lists_become_tuples(given):
    assert ("shop", "billing") == Settings(packages=list(given)).packages


# --- immutability -----------------------------------------------------------------------------------------------------


def test_settings_do_not_change():
    settings = Settings()

    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.slow_seconds = 1


def test_what_was_given_may_change_afterwards():
    packages, paths = ["shop"], {"/srv/": ""}
    settings = Settings(packages=packages, path_map=paths)
    packages.append("other")
    paths["/"] = "wrong"

    assert (("shop",), {"/srv/": ""}) == (settings.packages, settings.path_map)


def test_settings_are_equal_by_value_and_replaceable():
    settings = Settings(path_map={"/srv/": ""}, packages=("shop",))

    assert (True, 2.5, ("shop",)) == (
        settings == Settings(path_map={"/srv/": ""}, packages=["shop"]),
        dataclasses.replace(settings, slow_seconds=2.5).slow_seconds,
        dataclasses.replace(settings, slow_seconds=2.5).packages,
    )


def test_json_is_every_setting_and_makes_them_again():
    settings = Settings(path_map={"/srv/": ""}, packages=("shop",), disabled_rules=("n-plus-one",), release="1.2")
    values = json.loads(json.dumps(settings.as_json()))

    assert (NAMES, settings) == (list(values), Settings(**values))


def test_slow_threshold_in_nanoseconds():
    assert 250_000_000 == Settings(slow_seconds=0.25).slow_ns


# --- environment ------------------------------------------------------------------------------------------------------


def test_environment_comes_on_top_of_what_was_given():
    base = Settings(slow_seconds=0.5, release="base", packages=("base",))

    assert Settings(slow_seconds=0.25, release="base", packages=("shop", "ns.billing")) == from_env(
        base, SLOW_SECONDS="0.25", PACKAGES=" shop, ns.billing ,"
    )


def test_every_type_is_read():
    assert Settings(
        enabled=False,
        slow_seconds=2.0,
        n_plus_one_threshold=5,
        call_sites="all",
        path_map={"/srv/app/": "", "/opt/": "opt/"},
        auto_scope=True,
        redact="text",
        release="2024.1",
        disabled_rules=("n-plus-one", "slow-statement"),
    ) == from_env(
        ENABLED="0",
        SLOW_SECONDS="2",
        N_PLUS_ONE_THRESHOLD="5",
        CALL_SITES="all",
        PATH_MAP="/srv/app/=,/opt/=opt/",
        AUTO_SCOPE="Yes",
        REDACT="text",
        RELEASE="2024.1",
        DISABLED_RULES="n-plus-one,slow-statement",
    )


def test_whole_seconds_given_in_code_leave_the_environment_free_to_give_parts():
    assert 0.25 == from_env(Settings(slow_seconds=1), SLOW_SECONDS="0.25").slow_seconds


@pytest.mark.parametrize("text", ["1", "true", "TRUE", " yes ", "on"])
def test_words_for_on(text):
    assert from_env(AUTO_SCOPE=text).auto_scope


@pytest.mark.parametrize("text", ["0", "false", "No", "off"])
def test_words_for_off(text):
    assert not from_env(ENABLED=text).enabled


def test_other_variables_are_left_alone():
    assert Settings() == Settings.from_env(environ={"PATH": "/bin", "SQLPROBES": "1", "sqlprobe_slow_seconds": "9"})


@pytest.mark.parametrize("name", ["REQUIRE_ALL", "RUN_DIR", "RUN_OPTIONS"])
def test_variables_of_other_parts_are_no_settings(name):
    assert Settings() == from_env(**{name: "x"})


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"ENABLED": "maybe"}, "SQLPROBE_ENABLED='maybe': 1 or 0 is needed (true, false, yes, no, on, off do too)"),
        ({"ENABLED": ""}, "SQLPROBE_ENABLED='': 1 or 0 is needed (true, false, yes, no, on, off do too)"),
        ({"SLOW_SECONDS": "fast"}, "SQLPROBE_SLOW_SECONDS='fast': a number is needed, such as 0.1"),
        ({"N_PLUS_ONE_THRESHOLD": "2.5"}, "SQLPROBE_N_PLUS_ONE_THRESHOLD='2.5': a whole number is needed, such as 2"),
        ({"PATH_MAP": "/srv"}, "SQLPROBE_PATH_MAP='/srv': pairs are needed, such as /srv/app/=,/opt/=opt/"),
        ({"SLOW_SECONDS": "-1"}, f"SQLPROBE_SLOW_SECONDS='-1': Settings(slow_seconds=-1.0): {SECONDS}"),
        ({"SLOW_SECONDS": "nan"}, f"SQLPROBE_SLOW_SECONDS='nan': Settings(slow_seconds=nan): {SECONDS}"),
        (
            {"CALL_SITES": "some"},
            "SQLPROBE_CALL_SITES='some': Settings(call_sites='some'): one of 'off', 'first', 'all' is needed",
        ),
        (
            {"SLOW_SECOND": "1"},
            "SQLPROBE_SLOW_SECOND: no setting is called 'slow_second'; did you mean SQLPROBE_SLOW_SECONDS?",
        ),
        ({"ZZZ": "1"}, f"SQLPROBE_ZZZ: no setting is called 'zzz': {', '.join(NAMES)}"),
    ],
)
def test_wrong_variable_is_told_with_what_would_do(environ, message):
    assert f"environment variable {message}" == env_error(**environ)


def test_disabled_by_the_environment_installs_nothing(engine, monkeypatch):
    monkeypatch.setenv("SQLPROBE_ENABLED", "0")
    probe = sqlprobe.attach(engine)

    assert (False, None) == (probe.attached, sqlprobe.probe_of(engine))


# --- pyproject.toml ---------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder, which is the current one; call it with what its [tool.sqlprobe] holds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()

    def write(text, head="[tool.sqlprobe]\n", name="pyproject.toml"):
        (tmp_path / name).write_text(head + text, encoding="utf-8")
        return tmp_path / name

    return write


def resolved(given=None, base=None, **environ):
    return resolve(given, base=base, environ={f"SQLPROBE_{name}": text for name, text in environ.items()})


def file_error(**environ):
    with pytest.raises(SettingsError) as raised:
        resolved(**environ)
    return str(raised.value)


def test_environment_over_code_over_file_over_base(project):
    file = project("slow_seconds = 1\nloop_threshold = 7\nrelease = 'file'\ncall_sites = 'off'\n")

    found = resolved(
        Settings(loop_threshold=5, release="code"), base=Settings(call_sites="all", auto_scope=True), RELEASE="environ"
    )

    assert found == (
        Settings(slow_seconds=1, loop_threshold=5, release="environ", call_sites="off", auto_scope=True),
        {
            "slow_seconds": str(file),
            "loop_threshold": "code",
            "release": "SQLPROBE_RELEASE",
            "call_sites": str(file),
        },
    )


def test_every_type_of_toml_is_read(project, tmp_path):
    (tmp_path / "budgets.toml").write_text('[budgets]\n"GET /a" = 4\n')
    project(
        "enabled = false\nslow_seconds = 0.5\npackages = ['shop', 'ns.billing']\nbudgets = 'budgets.toml'\n"
        "[tool.sqlprobe.path_map]\n'/srv/app/' = ''\n"
        "[[tool.sqlprobe.ignores]]\nrule = 'n-plus-one'\nlabel = 'Order.items'\nreason = 'two rows'\n"
    )

    assert (
        Settings(
            enabled=False,
            slow_seconds=0.5,
            packages=("shop", "ns.billing"),
            budgets={"GET /a": 4},
            path_map={"/srv/app/": ""},
            ignores=(sqlprobe.Ignore("n-plus-one", "Order.items", reason="two rows"),),
        )
        == resolved().settings
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slow_seconds = '1'", f"slow_seconds: Settings(slow_seconds='1'): {SECONDS}"),
        ("enabled = 1", "enabled: Settings(enabled=1): True or False is needed"),
        ("sample = 10", "sample: Settings(sample=10): a share from 0 to 1 is needed"),
        ("slow-seconds = 1", "slow-seconds: no setting is called 'slow-seconds'; did you mean slow_seconds?"),
        ("zzz = 1", f"zzz: no setting is called 'zzz': {', '.join(NAMES)}"),
        ("packages = 'shop'", "packages: Settings(packages='shop'): a tuple of strings, such as ('shop',) is needed"),
    ],
)
def test_wrong_entry_is_told_with_its_file_and_what_would_do(project, text, message):
    file = project(text)

    assert f"{file} [tool.sqlprobe] {message}" == file_error()


def test_a_file_that_an_entry_names_and_that_is_missing_is_told(project):
    file = project("budgets = 'none.toml'")

    assert file_error().startswith(f"{file} [tool.sqlprobe] budgets: budgets {file.parent / 'none.toml'}: ")


def test_a_table_that_is_none_is_told(project):
    file = project("sqlprobe = 3\n", head="[tool]\n")

    assert f"{file}: a table is needed, found tool.sqlprobe = 3; write [tool.sqlprobe]" == file_error()


def test_broken_toml_is_told_only_where_it_means_us(project):
    project("x = \n", head="[tool.other]\n")
    others = resolved()
    file = project("slow_seconds = \n")

    assert (Settings(), {}) == others
    assert file_error().startswith(f"{file}: no TOML: Invalid value (at line 2")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe[tool.sqlprobe]", b"tool = 3\n", b"[tool.ruff]\nx = 1\n"])
def test_files_that_say_nothing_to_us_change_nothing(project, tmp_path, content):
    (tmp_path / "pyproject.toml").write_bytes(content)

    assert (Settings(), {}) == resolved()


def test_the_nearest_file_above_counts_and_none_beyond_the_repository(project, tmp_path, monkeypatch):
    file = project("loop_threshold = 9\n")
    (tmp_path / "src" / "shop").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "src" / "shop")
    inside = config_file({}), resolved().settings.loop_threshold
    (tmp_path / "src" / ".git").mkdir()

    assert ((file, 9), None) == (inside, config_file({}))


def test_a_variable_names_another_file_or_none(project, tmp_path):
    project("loop_threshold = 9\n")
    other = project("loop_threshold = 4\n", name="other.toml")
    missing = tmp_path / "missing.toml"

    assert (4, 2) == (resolved(CONFIG=str(other)).settings.loop_threshold, resolved(CONFIG="").settings.loop_threshold)
    assert (
        f"environment variable SQLPROBE_CONFIG={str(missing)!r}: no such file; name a TOML file with [tool.sqlprobe], "
        "or nothing"
    ) == file_error(CONFIG=str(missing))


def test_a_folder_that_is_gone_has_no_file(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    assert config_file({}) is None


def test_attach_takes_the_file(project, engine):
    project("slow_seconds = 0.25\n")
    with sqlprobe.attach(engine, settings=Settings(loop_threshold=3)) as probe:
        assert (0.25, 3) == (probe.settings.slow_seconds, probe.settings.loop_threshold)


def test_a_wrong_file_fails_attach_and_leaves_nothing(project, engine):
    project("slow_seconds = 'x'\n")
    with pytest.raises(SettingsError):
        sqlprobe.attach(engine)

    assert sqlprobe.probe_of(engine) is None

"""Fetching needs no root and changes nothing when it fails; each reason is one typed line."""

import errno
import fcntl
import io
import json
import os
import stat
import tarfile
import tempfile
from pathlib import Path

import pytest

from nvcore_fw_gsp.provision import errors
from nvcore_fw_gsp.provision.apt import classify, debian_mirrors
from nvcore_fw_gsp.provision.fetch import NOTE, fetch, read_note
from nvcore_fw_gsp.provision.place import default_folder
from nvcore_fw_gsp.provision.unpack import unpack

ROOT = "./usr/lib/firmware/nvidia/"
GOOD = {
    ROOT + "tu102/gsp/gsp-570.144.bin": b"image",
    ROOT + "ga100/gsp/gsp-570.144.bin": "../../tu102/gsp/gsp-570.144.bin",
    ROOT + "gp102/acr/bl.bin": b"loader",
    ROOT + "ad103": "ad102",
    ROOT + "gm200/acr/bl.bin": b"another chip",
    ROOT + "tu102/nvdec/scrubber.bin": b"another part",
    "./usr/share/doc/firmware-nvidia-graphics/copyright": b"licence",
    "./etc/passwd": b"no",
}
PRINTED = "'http://mirror/debian/dists/bookworm/InRelease' x 0\n'http://mirror/debian-security/dists/bookworm-security/InRelease' x 0\n"

APT = """#!/bin/sh
echo "$@" >> "$LOG"
case "$*" in
*--print-uris*download*) echo "'http://m/p.deb' firmware-nvidia-graphics_1-2_all.deb 5 SHA256:%(sum)s";;
*--print-uris*) cat "$PRINTED";;
*download*) cp "$DEB" firmware-nvidia-graphics_1-2_all.deb;;
*update*) test -z "$FAIL" || { echo "$FAIL" >&2; exit 100; };;
esac
"""


def archive(members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


@pytest.fixture
def machine(tmp_path):
    """A made-up apt-get and dpkg-deb, and the environment in which they are found."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {"apt-get": APT % {"sum": "ab" * 32}, "dpkg-deb": '#!/bin/sh\ncat "$2"\n'}.items():
        path = tools / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "deb").write_bytes(archive(GOOD))
    (tmp_path / "printed").write_text(PRINTED)
    paths = {"LOG": tmp_path / "log", "DEB": tmp_path / "deb", "PRINTED": tmp_path / "printed", "PATH": f"{tools}:/usr/bin:/bin"}
    return {key: str(value) for key, value in paths.items()}


def test_images_come_with_a_note_and_their_licence(tmp_path, machine):
    folder, said = tmp_path / "state" / "nvidia", []
    note = fetch(str(folder), said.append, environ=machine)
    assert (folder / "ga100/gsp/gsp-570.144.bin").read_bytes() == b"image"
    assert (folder / "copyright").read_bytes() == b"licence"
    assert not (folder / "gm200").exists() and not (folder / "tu102/nvdec").exists()
    assert os.readlink(folder / "ad103") == "ad102"
    assert (note["version"], note["sha256"], sorted(note["files"])) == (
        "1-2",
        "ab" * 32,
        ["copyright", "gp102/acr/bl.bin", "tu102/gsp/gsp-570.144.bin"],
    )
    assert read_note(str(folder)) == json.loads((folder / NOTE).read_text()) == note
    assert any(line.startswith("downloading") for line in said)
    assert [p.name for p in folder.parent.iterdir()].count("nvidia") == 1 and not list(folder.parent.glob(".fetch-*"))


def test_the_machines_own_apt_state_is_left_alone(tmp_path, machine):
    fetch(str(tmp_path / "nvidia"), lambda _: None, environ=machine)
    with open(machine["LOG"]) as file:
        calls = file.read().splitlines()
    assert len(calls) == 4
    assert all(f"Dir::State={tmp_path}/.fetch-" in call and "APT::Sandbox::User=" in call for call in calls)
    assert all("Dir::Etc::sourceparts=-" in call for call in calls[1:]) and "install" not in " ".join(calls)


def test_what_is_there_is_not_fetched_again_unless_forced(tmp_path, machine):
    folder, said = str(tmp_path / "nvidia"), []
    fetch(folder, said.append, environ=machine)
    os.unlink(machine["LOG"])
    fetch(folder, said.append, environ=machine)
    assert said[-1].startswith("already there") and not os.path.exists(machine["LOG"])
    fetch(folder, said.append, environ=machine, force=True)
    assert os.path.exists(machine["LOG"])
    os.unlink(f"{folder}/gp102/acr/bl.bin")
    fetch(folder, said.append, environ=machine)
    assert os.path.exists(f"{folder}/gp102/acr/bl.bin")


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ("E: The repository 'http://m trixie-backports Release' is not signed.", errors.KeyringMissing),
        ("W: GPG error: http://m: NO_PUBKEY 0E98404D386FA1D9", errors.KeyringMissing),
        ("Err:1 http://m trixie-backports InRelease\nE: Failed to fetch http://m/InRelease  403  Forbidden", errors.MirrorRefused),
        ("E: The repository 'http://m trixie-backports Release' does not have a Release file.", errors.PackageAbsent),
        ("E: Failed to fetch http://m/p.deb  404  Not Found", errors.PackageAbsent),
        ("E: Unable to locate package firmware-nvidia-graphics", errors.PackageAbsent),
        ("W: Failed to fetch http://m/InRelease  Temporary failure resolving 'm'", errors.NetworkUnreachable),
        ("E: Failed to fetch http://m Could not connect to m:80 (1.2.3.4), connection timed out", errors.NetworkUnreachable),
        (
            "Err:1 http://m trixie-backports InRelease\n  Could not connect to m:9 (127.0.0.1). - connect (111: Connection refused)\n"
            "E: Some index files failed to download. They have been ignored, or old ones used instead.",
            errors.NetworkUnreachable,
        ),
        ("E: Could not open file /x - open (13: Permission denied)", errors.PlaceNotWritable),
        ("E: Write error - write (28: No space left on device)", errors.PlaceNotWritable),
        ("E: something new", errors.AptFailed),
        ("", errors.AptFailed),
    ],
)
def test_each_reason_is_one_line_of_its_own_kind(told, kind):
    error = classify(told, "reading the lists")
    assert type(error) is kind and "\n" not in str(error) and error.remedy


def test_a_failed_fetch_leaves_the_folder_as_it_was(tmp_path, machine):
    folder = tmp_path / "nvidia"
    fetch(str(folder), lambda _: None, environ=machine)
    before = sorted(os.listdir(folder))
    with pytest.raises(errors.NetworkUnreachable):
        fetch(str(folder), lambda _: None, environ={**machine, "FAIL": "W: Temporary failure resolving 'm'"}, force=True)
    assert sorted(os.listdir(folder)) == before and not list(tmp_path.glob(".fetch-*"))


def test_without_apt_or_mirror_or_place_the_reason_is_said(tmp_path, machine):
    with pytest.raises(errors.AptMissing, match="apt-get"):
        fetch(str(tmp_path / "a"), lambda _: None, environ={"PATH": str(tmp_path)})
    with open(machine["PRINTED"], "w") as file:
        file.write("'http://m/debian-security/dists/bookworm-security/InRelease' x 0\n")
    with pytest.raises(errors.AptMissing, match="no Debian mirror"):
        fetch(str(tmp_path / "b"), lambda _: None, environ=machine)
    with pytest.raises(errors.PlaceNotWritable):
        fetch("/proc/nvcore/nvidia", lambda _: None, environ=machine)


@pytest.mark.parametrize("where", ["room", "sources.list", ".fetch-", NOTE])
def test_a_full_disk_is_called_that_with_the_folder(tmp_path, machine, monkeypatch, where):
    """room: apt-get does not tell that what it prints is lost."""
    if where == "room":
        Path(machine["PRINTED"]).write_text("")
    make, plain = tempfile.mkdtemp, open

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def opened(path, *more, **words):
        return full(path) if str(path).endswith(f"/{where}") and "w" in "".join(map(str, more)) else plain(path, *more, **words)

    monkeypatch.setattr("builtins.open", opened)
    monkeypatch.setattr(
        tempfile, "mkdtemp", lambda *more, **words: full(words.get("prefix")) if where == ".fetch-" else make(*more, **words)
    )
    with pytest.raises(errors.PlaceNotWritable, match=r"No space left on device.*make room there") as caught:
        fetch(str(tmp_path / "state" / "nvidia"), lambda _: None, environ=machine)
    assert str(tmp_path / "state") in (caught.value.where or "")


def test_a_folder_with_other_things_is_not_replaced(tmp_path, machine):
    (tmp_path / "nvidia").mkdir()
    (tmp_path / "nvidia" / "precious").write_text("x")
    with pytest.raises(errors.PlaceNotWritable, match="something else"):
        fetch(str(tmp_path / "nvidia"), lambda _: None, environ=machine)
    assert (tmp_path / "nvidia" / "precious").exists()


@pytest.mark.parametrize("to", ["/etc/passwd", "../../../../etc/passwd", "../../.."])
def test_a_link_out_of_the_package_is_refused(tmp_path, machine, to):
    (tmp_path / "evil").write_bytes(archive({**GOOD, ROOT + "ga102/gsp/gsp-570.144.bin": to}))
    with pytest.raises(errors.PackageDamaged, match="leads out"):
        unpack(str(tmp_path / "evil"), str(tmp_path / "out"), machine, lambda _: None)


CHAINS = {
    "a file behind a link": [("ga102/gsp", ".."), ("ga102/gsp/foo", b"owned")],
    "a link behind a link": [("ga102/gsp", ".."), ("ga102/gsp/foo", "../../escaped"), ("ga102/gsp/foo", b"owned")],
    "a file over a link": [("ga102/gsp/foo", "../../ga100/gsp/bar"), ("ga102/gsp/foo", b"owned")],
    "a link that climbs behind another": [("ga102/gsp/up", "../.."), ("ga102/gsp/foo", "up/../../escaped")],
}


@pytest.mark.parametrize("chain", CHAINS)
def test_links_that_together_lead_out_are_refused_and_nothing_is_written_behind_one(tmp_path, machine, chain):
    members = {name: content for name, content in GOOD.items() if name.endswith("gsp-570.144.bin")}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in [*members.items(), *((ROOT + name, content) for name, content in CHAINS[chain])]:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    (tmp_path / "evil").write_bytes(data.getvalue())
    outer = tmp_path / "a" / "b" / "nvidia"
    outer.mkdir(parents=True)
    with pytest.raises(errors.PackageDamaged):
        unpack(str(tmp_path / "evil"), str(outer), machine, lambda _: None)
    assert list((tmp_path / "a").iterdir()) == [outer.parent] and list(outer.parent.iterdir()) == [outer]
    for path in outer.rglob("*"):
        assert path.resolve().is_relative_to(outer), path
        assert path.is_symlink() or path.is_dir() or path.read_bytes() != b"owned"


def test_old_images_stay_where_new_ones_cannot_be_put(tmp_path, machine, monkeypatch):
    folder = tmp_path / "nvidia"
    fetch(str(folder), lambda _: None, environ=machine)
    before = sorted(os.listdir(folder))
    rename = os.rename

    def second_fails(old, new):
        if os.path.basename(old) == "nvidia" and ".fetch-" in str(old):
            raise OSError(39, "Directory not empty")
        rename(old, new)

    monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(errors.PlaceNotWritable, match="Directory not empty"):
        fetch(str(folder), lambda _: None, environ=machine, force=True)
    assert sorted(os.listdir(folder)) == before and read_note(str(folder)) and not list(tmp_path.glob(".fetch-*"))


def test_two_fetches_do_not_fill_one_folder_at_a_time(tmp_path, machine):
    folder = tmp_path / "nvidia"
    with open(tmp_path / ".fetch.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(errors.PlaceNotWritable, match="another fetch"):
            fetch(str(folder), lambda _: None, environ=machine)
    assert not folder.exists()
    fetch(str(folder), lambda _: None, environ=machine)


def test_a_member_that_climbs_out_is_not_written(tmp_path, machine):
    (tmp_path / "evil").write_bytes(archive({**GOOD, ROOT + "ga102/gsp/../../../../../x": b"no"}))
    sums = unpack(str(tmp_path / "evil"), str(tmp_path / "out"), machine, lambda _: None)
    assert not any(os.path.basename(name) == "x" for name in sums)


def test_a_package_without_images_or_without_an_end_is_refused(tmp_path, machine):
    for content in (archive({"./x": b""}), archive(GOOD)[:700], b"", b"no archive" * 100):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(errors.PackageDamaged):
            unpack(str(tmp_path / "bad"), str(tmp_path / "out"), machine, lambda _: None)


def test_a_file_that_is_larger_than_any_image_is_refused(tmp_path, machine, monkeypatch):
    (tmp_path / "big").write_bytes(archive(GOOD))
    monkeypatch.setattr("nvcore_fw_gsp.provision.unpack._MAX_FILE", 5)  # "loader" has 6
    with pytest.raises(errors.PackageDamaged, match="implausible"):
        unpack(str(tmp_path / "big"), str(tmp_path / "out"), machine, lambda _: None)


def test_mirrors_come_from_apts_own_configuration():
    assert debian_mirrors(PRINTED) == ["http://mirror/debian"]
    assert debian_mirrors("'mirror+file:/etc/apt/mirrors/debian.list/dists/trixie/InRelease' x 0") == [
        "mirror+file:/etc/apt/mirrors/debian.list"
    ]
    assert debian_mirrors("'https://h/proxy/debian/dists/trixie-updates/InRelease' x 0\n'http://v/cuda/dists/stable/InRelease' x 0") == [
        "https://h/proxy/debian"
    ]


def test_the_place_follows_the_state_directory(monkeypatch):
    assert default_folder({"STATE_DIRECTORY": "/var/lib/x:/y"}) == "/var/lib/x/plugins/fw_gsp/firmware/nvidia"
    below = "plugins/fw_gsp/firmware/nvidia"
    for user, environ, state in (
        (0, {"XDG_STATE_HOME": "/s"}, "/var/lib/nvcore"), (1000, {"XDG_STATE_HOME": "/s", "HOME": "/h"}, "/s/nvcore"),
        (1000, {"HOME": "/h"}, "/h/.local/state/nvcore"), (1000, {}, "/.local/state/nvcore"),
    ):  # fmt: skip
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        assert default_folder(environ) == f"{state}/{below}"

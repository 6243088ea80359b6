"""Files that mean harm: each a name and a function that puts it where a loader will look."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np

HUGE = 2**40


class Runs:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def payloads(canary: Path):
    """{name: bytes, or the target of a link}; whichever executes or escapes makes `canary`."""
    touch, escape = f"touch {canary}", os.path.relpath(canary, "/tmp/x/y/z")
    found = {f"pickle {p}": pickle.dumps(Runs(touch), protocol=p) for p in range(6)}
    found["python"] = f"__import__('os').system({touch!r})\n".encode()
    found["shell"] = f"#!/bin/sh\n{touch}\n".encode()
    found["postscript"] = (
        f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({canary}) (w) file\n".encode()
    )
    found["npy of objects"] = _npy_of_objects(touch)
    found["npz of objects"] = _zip({"image.npy": found["npy of objects"]})
    found["torch"] = _torch(found["pickle 2"])
    found["torch of a huge tensor"] = _torch(_tensor(HUGE, HUGE, 1))
    found["torch of a huge view"] = _torch(_tensor(1, HUGE, 0))
    found["torch of more than there is"] = _torch(_tensor(2**16, 2**16, 1))
    for size in (HUGE, 2**36):
        found[f"old torch of {size}"] = _old_torch(_tensor(size, size, 1))
    found["zip slip"] = _zip({f"../../../../../../..{canary}": b"", escape: b"", str(canary): b""})
    found["tar slip"] = _tar(canary)
    found["zip bomb"] = _zip({"image.npy": bytes(2**28)}, zipfile.ZIP_DEFLATED)
    found["zip with a false size"] = _false_size(found["zip bomb"])
    found["zip of many"] = _zip({f"{i}.npy": b"" for i in range(3_000)})
    found["gz bomb"] = gzip.compress(bytes(2**28), 1)
    found["gz bomb of idx"] = gzip.compress(bytes([0, 0, 8, 3]) + b"\x7f\xff\xff\xff" * 3, 1)
    found["idx"] = bytes([0, 0, 8, 3]) + b"\x7f\xff\xff\xff" * 3
    found["idx of many axes"] = bytes([0, 0, 8, 255]) + bytes(4 * 255)
    for shape in ((HUGE,), (HUGE, HUGE), (2**62, 4, 2), (-1,), (0, HUGE)):
        found[f"npy of shape {shape}"] = _npy(
            f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"
        )
        found[f"npz of shape {shape}"] = _zip({"image.npy": found[f"npy of shape {shape}"]})
    found["npy that calls"] = _npy(f"__import__('os').system({touch!r})")
    found["npy of nested"] = _npy("(" * 5000)
    found["npy with a huge header"] = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{"
    found["safetensors with a huge header"] = struct.pack("<Q", 2**63) + b"{}"
    header = {"x": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}
    text = json.dumps(header).encode()
    found["safetensors of a huge array"] = struct.pack("<Q", len(text)) + text
    found["png of many pixels"] = _png(60_000, 60_000)
    found["png that unpacks"] = _png(4_000, 4_000, zlib.compress(bytes(2**25), 9))
    found["png with a huge chunk"] = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**31 - 1) + b"IHDR"
    found["png with a text bomb"] = _png(8, 8, text=b"zTXtk\0\0" + zlib.compress(bytes(2**27)))
    found["bmp of many pixels"] = (
        b"BM" + struct.pack("<IIIIiiHH", 99, 0, 54, 40, 2**30, 2**30, 1, 24) + bytes(24)
    )
    found["gif of many pixels"] = (
        b"GIF89a" + b"\xff\xff\xff\xff\x00\x00\x00," + bytes(4) + b"\xff" * 4 + b"\0\2"
    )
    found["ppm of many pixels"] = b"P6 100000 100000 255\n"
    found["tiff of many pixels"] = _tiff()
    found["nested json"] = b'{"name":' + b"[" * 200_000
    found["json with a huge number"] = b'{"name": "x", "steps": 1' + b"0" * 100_000 + b"}"
    found["json that names python"] = json.dumps(
        {"name": "x", "py/object": "os.system", "data": {}}
    ).encode()
    found["experiment of a huge model"] = json.dumps(
        {"name": "../../escape", "tasks": [], "data": {"source": str(canary)}}
    ).encode()
    found["csv with a huge cell"] = b"image,digit\n" + b"x" * 2**20
    found["csv that leaves"] = f"image,digit\n{escape},1\n".encode()
    found["jsonl"] = b'{"image": "../../../../etc/passwd"}\n{' + b'"x":{' * 50_000
    found["parquet"] = b"PAR1" + b"\x15" * 100 + struct.pack("<I", 2**31 - 1) + b"PAR1"
    found["parquet with a huge footer"] = (
        b"PAR1\x19\xfc" + b"\xff" * 50 + struct.pack("<I", 40) + b"PAR1"
    )
    found["age with a costly passphrase"] = (
        b"age-encryption.org/v1\n-> scrypt rF0/NwblUHHTpgQgRpe5CQ 40\n"
        + b"A" * 43
        + b"\n--- "
        + b"A" * 43
        + b"\n"
        + bytes(64)
    )
    found["age that names a program"] = (
        b"age-encryption.org/v1\n-> plugin-x AAAA\nAAAA\n--- " + b"A" * 43 + b"\n"
    )
    found["pem"] = (
        b"-----BEGIN EC PRIVATE KEY-----\n" + b"A" * 100_000 + b"\n-----END EC PRIVATE KEY-----\n"
    )
    found["nothing"] = b""
    found["zeros"] = bytes(4096)
    found["noise"] = np.random.default_rng(0).bytes(4096)
    found["link to a device"] = Path("/dev/zero")
    found["link to a secret"] = Path("/etc/passwd")
    found["link to nowhere"] = canary
    found["link to a folder"] = Path("/")
    found["sparse"] = HUGE
    return found


def put(path: Path, payload):
    """Makes a file of a payload."""
    if path.is_symlink() or path.exists():
        path.unlink()
    if isinstance(payload, Path):
        path.symlink_to(payload)
    elif isinstance(payload, int):
        with path.open("wb") as file:
            file.write(
                _npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({HUGE - 128},)}}")
            )
            file.truncate(payload)
    else:
        path.write_bytes(payload)


def _npy(header):
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _npy_of_objects(command):
    file = io.BytesIO()
    np.save(file, np.array([Runs(command)], dtype=object), allow_pickle=True)
    return file.getvalue()


def _torch(content):
    """A file of PyTorch's with one storage, of one number."""
    members = {"data.pkl": content, "version": b"3", "byteorder": b"little", "data/0": bytes(4)}
    return _zip({f"archive/{name}": data for name, data in members.items()})


def _old_torch(content):
    """The same as PyTorch wrote before version 1.6: pickles, one after the other."""
    before = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    content = content.replace(b"tQ", b"NtQ")  # no view of another storage
    return b"".join([*(pickle.dumps(x, 2) for x in before), content, pickle.dumps(["0"], 2)])


def _tensor(stored, size, stride):
    """The pickle of {"w": a tensor}, which claims so many stored numbers and such a shape."""
    word = lambda text: b"X" + struct.pack("<I", len(text)) + text.encode()
    number = lambda value: b"\x8a\x08" + struct.pack("<q", value)
    storage = b"(" + word("storage") + b"ctorch\nFloatStorage\n" + word("0") + word("cpu")
    storage += number(stored) + b"tQ"
    shape = b"(" + number(size) + b"t(" + number(stride) + b"t"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + shape
    tensor += b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + word("w") + tensor + b"s."


def _zip(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def _false_size(bomb):
    """A zip whose directory says that its member is small."""
    return bomb.replace(struct.pack("<I", 2**28), struct.pack("<I", 200))


def _tar(canary):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(f"../../../../../..{canary}"))
        archive.addfile(tarfile.TarInfo(str(canary)))
    return file.getvalue()


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width, height, data=b"", text=None):
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = [_chunk(b"IHDR", header)]
    if text is not None:
        chunks.append(_chunk(text[:4], text[4:]))
    chunks += [_chunk(b"IDAT", data or zlib.compress(bytes(9)) * 8), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _tiff():
    tags = {256: 2**31 - 1, 257: 2**31 - 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)

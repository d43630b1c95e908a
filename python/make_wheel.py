# SPDX-License-Identifier: MIT
"""make_wheel.py VERSION LIBRARY LICENSE FOLDER: a wheel of the package with the shared library inside, for
any Python 3 on this system.  A wheel is a zip file with a list of its files (PyPA's binary distribution
format)."""
import base64
import hashlib
import os
import sys
import sysconfig
import zipfile

version, library, licence, folder = sys.argv[1:]
here = os.path.dirname(os.path.abspath(__file__))
system = sysconfig.get_platform().replace("-", "_").replace(".", "_")
tag = "py3-none-" + system
info = "attend-%s.dist-info/" % version

files = {"attend/" + f: open(os.path.join(here, "attend", f), "rb").read()
         for f in sorted(os.listdir(os.path.join(here, "attend"))) if f.endswith(".py")}
files["attend/libattend.so"] = open(library, "rb").read()
files[info + "LICENSE"] = open(licence, "rb").read()
files[info + "METADATA"] = (
    "Metadata-Version: 2.1\nName: attend\nVersion: %s\nSummary: Attention on whatever this machine has\n"
    "License: MIT\nRequires-Python: >=3.8\n" % version).encode()
files[info + "WHEEL"] = ("Wheel-Version: 1.0\nGenerator: attend\nRoot-Is-Purelib: false\nTag: %s\n" %
                         tag).encode()


def record(name, data):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return "%s,sha256=%s,%d\n" % (name, digest, len(data))


files[info + "RECORD"] = ("".join(record(*f) for f in files.items()) + info + "RECORD,,\n").encode()
path = os.path.join(folder, "attend-%s-%s.whl" % (version, tag))
with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
    for name, data in files.items():
        z.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
print(path)

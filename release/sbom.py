"""What is in a Debian package, for programs that look for advisories: CycloneDX 1.6, JSON. Reproducible: times and numbers come from the content."""

import datetime
import re
import uuid

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

# What a wheel has compiled into it, under its own name: most advisories are filed for that. (wheel, what, kind of purl, licence, where its version stands)
EMBEDDED = [
    ("wasmtime", "wasmtime", "cargo", "Apache-2.0 WITH LLVM-exception", None),              # the wheel has the version of the library that it holds
    ("cryptography", "openssl", "generic", "Apache-2.0", ("cryptography/hazmat/bindings/_rust*.so", rb"OpenSSL (\d+\.\d+\.\d+) \d+ \w+ \d{4}")),
    ("zstandard", "zstd", "generic", "BSD-3-Clause", ("zstandard/backend_c*.so", rb"\0(1\.\d+\.\d+)\0")),
]


def document(version, machine, distributions, hashes, site, made) -> str:
    """distributions: name, version, licence of each (package.bundled). hashes: name -> SHA-256 of the wheels that it came from. site: where they lie.
    made: seconds since 1970."""
    known = [entry for entry in distributions if entry["name"] != "tidegate"]
    parts = [_component(entry["name"].lower().replace("_", "-"), entry["version"], "pypi", entry["licence"], hashes[_plain(entry["name"])]) for entry in known]
    for wheel, what, kind, licence, where in EMBEDDED:
        whole = next(part for part in parts if part.name == wheel)
        found = whole.version if where is None else _version(site, *where)
        if found:
            whole.components.add(_component(what, found, kind, licence))
    itself = Component(name="tidegate", version=version, type=ComponentType.APPLICATION, purl=PackageURL("generic", None, "tidegate", version, {"arch": machine}),
                       bom_ref="tidegate")
    said = "\n".join(sorted(f"{part.purl} {sorted(h.content for h in part.hashes)}" for part in parts))
    bom = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"tidegate {version} {machine}\n{said}"),
              metadata=BomMetaData(component=itself, timestamp=datetime.datetime.fromtimestamp(made, datetime.timezone.utc)))
    bom.register_dependency(itself, parts)
    return make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1) + "\n"


def _component(name, version, kind, licence, hashes=()):
    purl = PackageURL(kind, None, name, version)
    return Component(name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=str(purl), licenses=[LicenseFactory().make_from_string(licence)],
                     hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest) for digest in sorted(hashes)])


def _plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def _version(site, pattern, expression):
    for path in site.glob(pattern):
        if found := re.search(expression, path.read_bytes()):
            return found[1].decode()
    return None

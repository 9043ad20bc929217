"""Print a list of what a wheel requires, as CycloneDX 1.6 JSON.

    python tools/sbom.py dist/automl_ext-….whl

Versions are ranges, since the wheel contains no library of others: pip chooses them when it installs the wheel.
"""

import email.parser
import hashlib
import json
import pathlib
import re
import sys
import zipfile


def metadata(wheel):
    """Return the METADATA of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def bill(wheel):
    """Return the list, as a dict for JSON."""
    about = metadata(wheel)
    purl = f"pkg:pypi/{about['Name'].lower().replace('_', '-')}@{about['Version']}"
    components = []
    for requirement in about.get_all("Requires-Dist", []):
        if "extra ==" in requirement:
            continue
        name, versions = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()
        components.append(
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/{name.lower()}",
                "name": name,
                "purl": f"pkg:pypi/{name.lower()}",
                "description": f"required version: {versions or 'any'}",
            }
        )
    own = {
        "type": "library",
        "bom-ref": purl,
        "name": about["Name"],
        "version": about["Version"],
        "purl": purl,
        "licenses": [{"expression": about["License-Expression"]}],
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(pathlib.Path(wheel).read_bytes()).hexdigest()}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": own},
        "components": components,
        "dependencies": [{"ref": purl, "dependsOn": [one["bom-ref"] for one in components]}],
    }


if __name__ == "__main__":
    print(json.dumps(bill(sys.argv[1]), indent=1))

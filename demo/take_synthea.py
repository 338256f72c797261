#!/usr/bin/env python3
"""Writes synthea.ndjson.zst: four Synthea patients with their histories, made ready to load with their own ids.

`demo/take_synthea.py FOLDER` reads a folder with small-12.ndjson.zst and v3-uscore-2021/{hospital,practitioner}-
information.json.zst (Synthea output, Apache-2.0, see README.md). Changes to the source: entries become `PUT Type/id`,
`urn:uuid:X` becomes `Type/X`, a reference by identifier becomes the resource it names, which is put into the bundle.
"""
import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
WANTED = ["79c96478-7878-4703-9e94-b999f2bc3295", "f39b0478-5d39-41ba-a0e7-1c5dd6987af9",
          "18be282b-67b9-d958-226a-c5510e5ef0c2", "88e4bac8-2609-3c28-a354-ab29f69153f4"]


def read(path):
    return subprocess.run(["zstd", "-dcq", str(path)], capture_output=True, check=True).stdout.decode()


def parse(text):
    return json.loads(text, parse_float=lambda s: "\0" + s + "\0")


def write(value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub(r'"\\u0000([^"]*?)\\u0000"', r"\1", text)


def main(folder):
    named = {}
    for part in ("hospital", "practitioner"):
        for e in parse(read(folder / f"v3-uscore-2021/{part}-information.json.zst"))["entry"]:
            r = e["resource"]
            for i in r.get("identifier", []):
                named[f"{r['resourceType']}?identifier={i.get('system')}|{i.get('value')}"] = r
    lines = []
    for line in read(folder / "small-12.ndjson.zst").splitlines():
        bundle = parse(line)
        if bundle["entry"][0]["resource"]["id"] not in WANTED:
            continue
        types = {e["fullUrl"]: e["resource"]["resourceType"] for e in bundle["entry"]}
        resources, extra = [e["resource"] for e in bundle["entry"]], {}

        def fix(v):
            if isinstance(v, list):
                return [fix(x) for x in v]
            if not isinstance(v, dict):
                return v
            out = {k: fix(x) for k, x in v.items()}
            target = out.get("reference")
            if isinstance(target, str) and target.startswith("urn:uuid:"):
                out["reference"] = f"{types[target]}/{target[9:]}"
            elif isinstance(target, str) and "?" in target:
                r = named[target]
                if r["id"] not in extra:
                    extra[r["id"]] = None
                    extra[r["id"]] = fix(r)
                out["reference"] = f"{r['resourceType']}/{r['id']}"
            return out

        fixed = [fix(r) for r in resources]
        entries = [{"fullUrl": f"urn:uuid:{r['id']}", "resource": r,
                    "request": {"method": "PUT", "url": f"{r['resourceType']}/{r['id']}"}}
                   for r in list(extra.values()) + fixed]
        lines.append(write({"resourceType": "Bundle", "type": "transaction", "entry": entries}))
        print(resources[0]["name"][0], resources[0]["birthDate"], len(entries))
    assert len(lines) == len(WANTED)
    out = HERE / "synthea.ndjson.zst"
    subprocess.run(["zstd", "-19", "-qf", "-o", str(out)], input=("\n".join(lines) + "\n").encode(), check=True)
    print(out.stat().st_size, "packed")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))

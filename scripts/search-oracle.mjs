// Writes crates/search/tests/golden/oracle.txt: what fhirpath.js and the few rules below find in the R4 examples and in
// twelve Synthea patients, as one hash a file or patient. An independent reading that `tests/oracle.rs` is held against;
// run it only when the definitions change.
//
// usage: npm install fhirpath@5 (somewhere), then from that folder
//        node .../scripts/search-oracle.mjs SEARCH-PARAMETERS.json EXAMPLES-FOLDER SMALL-12.ndjson OUT [SHOW]
// SHOW: a name whose lines are printed instead.

import { createRequire } from 'node:module';
import fs from 'node:fs';
import path from 'node:path';

const require = createRequire(path.join(process.cwd(), 'x.js'));
const fhirpath = require('fhirpath');
const model = require('fhirpath/fhir-context/r4');
const [definitions, examples, synthea, out, show] = process.argv.slice(2);

const parameters = {};
for (const { resource: p } of JSON.parse(fs.readFileSync(definitions)).entry) {
  if (!p.expression || ['composite', 'special'].includes(p.type) || ['_id', '_lastUpdated'].includes(p.code)) continue;
  for (const base of p.base) (parameters[base] ??= []).push(p);
}

// The published expression as fhirpath.js takes it: only the branches of this type, one by one (its union merges equal
// quantities and fails on comparators), `as` of collections as ofType, and resolve() by the text of the reference, since
// nothing can be resolved here.
function branches(p, type) {
  if (p.code === 'deceased') return [p.expression];
  const all = p.expression.split('|').map((b) => b.trim());
  const own = all.filter((b) => {
    const head = b.match(/^\(*\s*([A-Za-z]+)/)[1];
    return head === type || head === 'Resource' || /^[a-z]/.test(head);
  });
  return own
    .map((b) => b
      .replace(/^Resource\./, type + '.')
      .replace(/\s+as\s+([A-Za-z]+)/g, '.ofType($1)')
      .replace(/\.as\(/g, '.ofType(')
      .replace(/where\(resolve\(\) is ([A-Za-z]+)\)/g,
        (_, t) => `where(reference.matches('(^|/)${t}/[^/]+(/_history/[^/]+)?$'))`));
}

const compiled = {};
function evaluators(type) {
  return (compiled[type] ??= [...(parameters.Resource ?? []), ...(parameters[type] ?? [])].map((p) => {
    const runs = branches(p, type).map((b) => fhirpath.compile(b, model, { resolveInternalTypes: false }));
    return { p, narrowed: /resolve\(\)/.test(p.expression), run: (resource) => runs.flatMap((r) => r(resource)) };
  }));
}

const number = (n) => {
  const f = Number(n);
  return f === Infinity ? 'inf' : f === -Infinity ? '-inf' : f.toExponential().replace('e+', 'e');
};
const token = (system, code) => (code === undefined ? [] : [`token ${system ?? '-'}|${code}`]);
const text = (s) => (s ? [`text ${s}`] : []);
const list = (x) => (x === undefined ? [] : Array.isArray(x) ? x : [x]);

// First and last instant of a date as written, in milliseconds.
function range(s) {
  const m = s.match(/^(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d+))?)?(Z|[+-]\d\d:\d\d)?)?)?)?$/);
  const [, y, mo, d, h, mi, sec, frac, zone] = m;
  const utc = (...parts) => { const t = new Date(0); t.setUTCFullYear(parts[0], parts[1], parts[2]); t.setUTCHours(parts[3] ?? 0, parts[4] ?? 0, parts[5] ?? 0); return t.getTime(); };
  if (mo === undefined) return [utc(+y, 0, 1), utc(+y + 1, 0, 1)];
  if (d === undefined) return [utc(+y, mo - 1, 1), utc(+y, +mo, 1)];
  if (h === undefined) return [utc(+y, mo - 1, +d), utc(+y, mo - 1, +d + 1)];
  let start = utc(+y, mo - 1, +d, +h, +mi, +(sec ?? 0));
  let width = sec === undefined ? 60000 : 1000;
  if (frac !== undefined) {
    const used = Math.min(frac.length, 3);
    width = 1000 / 10 ** used;
    start += Number(frac.slice(0, used)) * width;
  }
  if (zone && zone !== 'Z') {
    const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(4));
    start += (zone[0] === '+' ? -1 : 1) * minutes * 60000;
  }
  return [start, start + width];
}
const period = (p) => [p.start ? range(p.start)[0] : -Infinity, p.end ? range(p.end)[1] : Infinity];
const span = ([lo, hi]) => [`date ${lo} ${hi}`];
const quantity = (lo, hi, u) => [`quantity ${number(lo)} ${number(hi)} ${u?.system ?? '-'}|${u?.code ?? '-'}|${u?.unit ?? '-'}`];

function reference(v, narrowed) {
  const lines = [];
  const local = v.reference?.match(/^([A-Z][A-Za-z]+)\/([A-Za-z0-9.-]{1,64})(\/_history\/[A-Za-z0-9.-]{1,64})?$/);
  if (local && parameterTypes.has(local[1])) lines.push(`reference ${local[1]}/${local[2]}`);
  else if (v.reference && !v.reference.startsWith('#')) lines.push(`url ${v.reference}`);
  if (v.identifier?.value !== undefined && !narrowed) lines.push(`identifier ${v.identifier.system ?? '-'}|${v.identifier.value}`);
  return lines;
}
let parameterTypes;

function convert(kind, type, v, narrowed) {
  switch (`${kind} ${type}`) {
    case 'token Coding': return [...token(v.system, v.code), ...text(v.display)];
    case 'token CodeableConcept': return [...list(v.coding).flatMap((c) => convert('token', 'Coding', c)), ...text(v.text)];
    case 'token Identifier': return [
      ...token(v.system, v.value),
      ...list(v.value === undefined ? undefined : v.type?.coding).filter((c) => c.system && c.code)
        .map((c) => `type ${c.system}|${c.code}|${v.value}`),
      ...text(v.type?.text)];
    case 'token ContactPoint': return token(v.use, v.value);
    case 'string HumanName': return [v.text, v.family, ...list(v.given), ...list(v.prefix), ...list(v.suffix)].filter(Boolean).map((s) => `string ${s}`);
    case 'string Address': return [v.text, ...list(v.line), v.city, v.district, v.state, v.postalCode, v.country].filter(Boolean).map((s) => `string ${s}`);
    case 'reference Reference': return reference(v, narrowed);
    case 'reference canonical': case 'reference uri': case 'reference url': return [`url ${v}`];
    case 'date Period': return v.start || v.end ? span(period(v)) : [];
    case 'date Timing': {
      const all = list(v.event).map(range);
      const b = v.repeat?.boundsPeriod;
      if (b && (b.start || b.end)) all.push(period(b));
      return all.length ? span([Math.min(...all.map((r) => r[0])), Math.max(...all.map((r) => r[1]))]) : [];
    }
    case 'date date': case 'date dateTime': case 'date instant': return span(range(v));
    case 'number Range': return v.low || v.high ? [`number ${number(v.low?.value ?? -Infinity)} ${number(v.high?.value ?? Infinity)}`] : [];
    case 'quantity Quantity': case 'quantity Age': case 'quantity Duration': case 'quantity Count': case 'quantity Distance':
      if (v.value === undefined) return [];
      return quantity(/>/.test(v.comparator ?? '') || !v.comparator ? v.value : -Infinity, /</.test(v.comparator ?? '') || !v.comparator ? v.value : Infinity, v);
    case 'quantity Money': return v.value === undefined ? [] : quantity(v.value, v.value, { system: v.currency && 'urn:iso:std:iso:4217', code: v.currency });
    case 'quantity Range': return v.low || v.high ? quantity(v.low?.value ?? -Infinity, v.high?.value ?? Infinity, v.low ?? v.high) : [];
    case 'quantity SampledData': {
      const values = (v.data ?? '').split(/\s+/).filter((d) => d && !Number.isNaN(Number(d))).map((d) => v.origin.value + Number(d) * (v.factor ?? 1));
      return values.length ? quantity(Math.min(...values), Math.max(...values), v.origin) : [];
    }
    case 'uri canonical': return [`uri ${v}`, ...(v.includes('|') ? [`uri ${v.split('|')[0]}`] : [])];
  }
  if (kind === 'token' && typeof v !== 'object') return token(undefined, String(v));
  if (kind === 'string' && typeof v === 'string') return [`string ${v}`];
  if (kind === 'number' && !Number.isNaN(Number(String(v)))) return [`number ${number(String(v))} ${number(String(v))}`];
  if (kind === 'uri' && typeof v === 'string') return [`uri ${v}`];
  if (kind === 'reference' && v?.resourceType) return v.id ? [`reference ${v.resourceType}/${v.id}`] : [];
  return [];
}

function lines(resource) {
  const found = new Set();
  for (const { p, narrowed, run } of evaluators(resource.resourceType)) {
    const nodes = run(resource);
    const types = fhirpath.types(nodes);
    nodes.forEach((node, i) => {
      const value = node?.data !== undefined ? node.data : node;
      const type = types[i].replace(/^.*\./, '');
      if (value?.resourceType && !p.target.includes(value.resourceType)) return;
      for (const line of convert(p.type, type, value, narrowed)) found.add(`${p.code} ${line}`);
    });
  }
  return found;
}

const bytes = (a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b));
function hash(all) {
  let h = 0xcbf29ce484222325n;
  for (const b of Buffer.from(all.join('\n'))) h = ((h ^ BigInt(b)) * 0x100000001b3n) & 0xffffffffffffffffn;
  return h.toString(16).padStart(16, '0');
}

parameterTypes = new Set(fs.readFileSync(new URL('../crates/model/src/types.rs', import.meta.url), 'utf8').match(/"[A-Z][A-Za-z]+"/g).map((s) => s.slice(1, -1)));
const result = [];
function add(name, all) {
  const sorted = [...all].sort(bytes);
  if (show === name) console.log(sorted.join('\n'));
  result.push(`${hash(sorted)} ${sorted.length} ${name}`);
}
for (const file of fs.readdirSync(examples).filter((f) => f.endsWith('.json')).sort()) {
  if (show && show !== file) continue;
  add(file, lines(JSON.parse(fs.readFileSync(path.join(examples, file)))));
}
fs.readFileSync(synthea, 'utf8').split('\n').filter(Boolean).forEach((line, i) => {
  if (show && show !== `synthea ${i}`) return;
  const bundle = JSON.parse(line);
  const places = new Map(bundle.entry.map((e) => [e.fullUrl, `${e.resource.resourceType}/${e.resource.id}`]));
  const all = new Set();
  for (const { resource } of bundle.entry) {
    const text = JSON.stringify(resource).replace(/"reference":"([^"]*)"/g, (m, r) => (places.has(r) ? `"reference":"${places.get(r)}"` : m));
    for (const l of lines(JSON.parse(text))) all.add(`${resource.resourceType}/${resource.id} ${l}`);
  }
  add(`synthea ${i}`, all);
});
if (!show) fs.writeFileSync(out, result.join('\n') + '\n');

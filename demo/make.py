#!/usr/bin/env python3
"""Writes the demo clinic: `demo/make.py` makes clinic.ndjson.zst anew, `demo/make.py --check` compares it.

Every person, place and event is invented for Keepwell (CC0-1.0, see README.md). One transaction Bundle a line:
first the clinic itself (organisations, places, staff), then one Bundle per patient, all as `PUT Type/id` with
stable ids, so that loading twice changes nothing. The output is a pure function of this file.

Codes: ICD-10-CM (problems), RxNorm ingredients (medicines), CVX (vaccines), LOINC (measurements, documents), UCUM
(units), HL7 terminology. SNOMED CT and CPT are left out on purpose: their licences do not allow it here.
"""
import base64
import datetime as dt
import json
import pathlib
import random
import subprocess
import sys
import uuid

HERE = pathlib.Path(__file__).resolve().parent
SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://harbourlane.example/")
HL7 = "http://terminology.hl7.org/CodeSystem/"
LOINC, ICD, RX, CVX, UCUM = ("http://loinc.org", "http://hl7.org/fhir/sid/icd-10-cm",
                             "http://www.nlm.nih.gov/research/umls/rxnorm", "http://hl7.org/fhir/sid/cvx",
                             "http://unitsofmeasure.org")


def uid(key):
    return str(uuid.uuid5(SPACE, key))


def concept(system, code, display, text=None):
    return {"coding": [{"system": system, "code": code, "display": display}], "text": text or display}


def hl7(name, code, display=None):
    coding = {"system": HL7 + name, "code": code}
    if display:
        coding["display"] = display
    return {"coding": [coding]}


def ref(kind, key, display=None):
    r = {"reference": f"{kind}/{uid(kind + ':' + key)}"}
    if display:
        r["display"] = display
    return r


def quantity(value, unit, code=None):
    return {"value": value, "unit": unit, "system": UCUM, "code": code or unit}


def clean(v):
    """Drops empty members: FHIR has no empty values."""
    if isinstance(v, dict):
        return {k: clean(x) for k, x in v.items() if x not in (None, "", [], {})}
    return [clean(x) for x in v] if isinstance(v, list) else v


class Bundle:
    def __init__(self):
        self.entries, self.seen = [], set()

    def put(self, kind, key, /, security=None, **fields):
        rid = uid(kind + ":" + key)
        assert (kind, rid) not in self.seen, (kind, key)
        self.seen.add((kind, rid))
        resource = {"resourceType": kind, "id": rid}
        if security:
            resource["meta"] = {"security": [{"system": HL7 + "v3-Confidentiality", "code": security,
                                              "display": {"R": "restricted", "V": "very restricted"}[security]}]}
        resource.update(clean(fields))
        self.entries.append({"fullUrl": f"https://harbourlane.example/fhir/{kind}/{rid}", "resource": resource,
                             "request": {"method": "PUT", "url": f"{kind}/{rid}"}})
        return {"reference": f"{kind}/{rid}"}

    def line(self):
        return json.dumps({"resourceType": "Bundle", "type": "transaction", "entry": self.entries},
                          ensure_ascii=False, separators=(",", ":"))


# ------------------------------------------------------------------ the clinic

CLINIC = "Harbour Lane Clinic"
STAFF = {  # key: (prefix, given, family, gender, qualification or function, practitioner role code)
    "okafor": ("Dr", "Amara", "Okafor", "female", "Physician, internal medicine", "doctor"),
    "haddad": ("Dr", "Yusuf", "Haddad", "male", "Physician, paediatrics", "doctor"),
    "echeverria": ("", "Tomás", "Echeverría", "male", "Registered nurse", "nurse"),
    "kallio": ("", "Aino", "Kallio", "female", "Nurse-midwife", "nurse"),
    "tan": ("", "Mei-Ling", "Tan", "female", "Front desk", None),
    "brandt": ("", "Gustav", "Brandt", "male", "Billing", None),
    "adeyemi": ("", "Oluwaseun", "Adeyemi", "male", "Records clerk", None),
    "sorensen": ("", "Ingrid", "Sørensen", "female", "Privacy officer", None),
    "wojcik": ("", "Dariusz", "Wójcik", "male", "Security officer", None),
    "raman": ("", "Priya", "Raman", "female", "Administrator", "ict"),
}

# The rooms in which somebody works: patients with a visit there are plausibly theirs.
ROOMS = {"okafor": ["exam1"], "haddad": ["exam2"], "echeverria": ["exam1"], "kallio": ["exam2", "ward"]}


def staff(key):
    prefix, given, family, *_ = STAFF[key]
    return ref("Practitioner", key, f"{prefix} {given} {family}".strip())


def clinic():
    b = Bundle()
    address = {"use": "work", "line": ["7 Harbour Lane"], "city": "Marlow Bay", "state": "ME", "postalCode": "04999",
               "country": "US"}
    org = b.put("Organization", "clinic", active=True, name=CLINIC,
                identifier=[{"system": "https://harbourlane.example/organisation", "value": "HLC"}],
                type=[hl7("organization-type", "prov", "Healthcare Provider")],
                telecom=[{"system": "phone", "value": "+1 207 555 0100"}], address=[address])
    for key, name in (("saltmarsh", "Saltmarsh Mutual Health Plan"), ("lighthouse", "Lighthouse State Care")):
        b.put("Organization", key, active=True, name=name, type=[hl7("organization-type", "ins", "Insurance Company")])
    b.put("Organization", "lab", active=True, name="Tidewater Laboratory",
          type=[hl7("organization-type", "prov", "Healthcare Provider")])
    for key, name, kind in (("exam1", "Examination room 1", "ro"), ("exam2", "Examination room 2", "ro"),
                            ("ward", "Maternity ward, bed 3", "bd"), ("desk", "Front desk", "area")):
        b.put("Location", key, status="active", name=name, mode="instance", managingOrganization=org,
              physicalType=hl7("location-physical-type", kind))
    for n, (key, (prefix, given, family, gender, job, code)) in enumerate(STAFF.items()):
        b.put("Practitioner", key, active=True, gender=gender,
              identifier=[{"system": "https://harbourlane.example/staff", "value": f"S{n + 11}"}],
              name=[{"use": "official", "family": family, "given": [given], "prefix": [prefix] if prefix else None}],
              telecom=[{"system": "phone", "use": "work", "value": f"+1 207 555 01{n + 11}"}],
              qualification=[{"code": {"text": job}}] if code in ("doctor", "nurse") else None)
        b.put("PractitionerRole", key, active=True, practitioner=staff(key), organization=org,
              code=[hl7("practitioner-role", code) | {"text": job} if code else {"text": job}],
              location=[ref("Location", room) for room in ROOMS[key]] if key in ROOMS else None)
    return b


# ------------------------------------------------------------------ words of the chart

VITALS = {  # key: (LOINC, display, unit, UCUM, decimals)
    "weight": ("29463-7", "Body weight", "kg", "kg", 1),
    "height": ("8302-2", "Body height", "cm", "cm", 1),
    "bmi": ("39156-5", "Body mass index (BMI) [Ratio]", "kg/m2", "kg/m2", 1),
    "pulse": ("8867-4", "Heart rate", "/min", "/min", 0),
    "breath": ("9279-1", "Respiratory rate", "/min", "/min", 0),
    "temp": ("8310-5", "Body temperature", "°C", "Cel", 1),
    "spo2": ("2708-6", "Oxygen saturation in Arterial blood", "%", "%", 0),
    "head": ("9843-4", "Head Occipital-frontal circumference", "cm", "cm", 1),
}
LABS = {  # key: (LOINC, display, unit, UCUM, decimals, low, high)
    "a1c": ("4548-4", "Hemoglobin A1c/Hemoglobin.total in Blood", "%", "%", 1, None, 5.6),
    "glucose": ("2345-7", "Glucose [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 0, 70, 99),
    "creatinine": ("2160-0", "Creatinine [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 2, 0.6, 1.1),
    "potassium": ("2823-3", "Potassium [Moles/volume] in Serum or Plasma", "mmol/L", "mmol/L", 1, 3.5, 5.1),
    "sodium": ("2951-2", "Sodium [Moles/volume] in Serum or Plasma", "mmol/L", "mmol/L", 0, 136, 145),
    "ldl": ("13457-7", "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation", "mg/dL", "mg/dL", 0, None, 100),
    "hdl": ("2085-9", "Cholesterol in HDL [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 0, 40, None),
    "trig": ("2571-8", "Triglyceride [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 0, None, 150),
    "hgb": ("718-7", "Hemoglobin [Mass/volume] in Blood", "g/dL", "g/dL", 1, 12.0, 16.0),
    "wbc": ("6690-2", "Leukocytes [#/volume] in Blood by Automated count", "10*3/uL", "10*3/uL", 1, 4.0, 11.0),
    "plt": ("777-3", "Platelets [#/volume] in Blood by Automated count", "10*3/uL", "10*3/uL", 0, 150, 400),
    "inr": ("6301-6", "INR in Platelet poor plasma by Coagulation assay", "INR", "{INR}", 1, 2.0, 3.0),
    "tsh": ("3016-3", "Thyrotropin [Units/volume] in Serum or Plasma", "mIU/L", "m[IU]/L", 2, 0.4, 4.5),
    "ferritin": ("2276-4", "Ferritin [Mass/volume] in Serum or Plasma", "ng/mL", "ng/mL", 0, 15, 150),
    "bili": ("1975-2", "Bilirubin.total [Mass/volume] in Serum or Plasma", "mg/dL", "mg/dL", 1, None, 12.0),
    "crp": ("1988-5", "C reactive protein [Mass/volume] in Serum or Plasma", "mg/L", "mg/L", 0, None, 5),
}
VACCINES = {
    "flu": ("140", "Influenza, seasonal, injectable, preservative free"), "hepb": ("08", "Hep B, adolescent or pediatric"),
    "dtap": ("20", "DTaP"), "ipv": ("10", "IPV"), "mmr": ("03", "MMR"), "varicella": ("21", "varicella"),
    "tdap": ("115", "Tdap"), "ppsv23": ("33", "pneumococcal polysaccharide PPV23"), "zoster": ("187", "zoster recombinant"),
    "hpv9": ("165", "HPV9"), "rota": ("119", "rotavirus, monovalent"), "pcv13": ("133", "Pneumococcal conjugate PCV 13"),
}
DRUGS = {  # RxNorm ingredients
    "metformin": "6809", "lisinopril": "29046", "atorvastatin": "83367", "amlodipine": "17767", "warfarin": "11289",
    "levothyroxine": "10582", "albuterol": "435", "fluticasone": "41126", "sertraline": "36437", "ibuprofen": "5640",
    "acetaminophen": "161", "penicillin": "70618", "aspirin": "1191", "furosemide": "4603", "epinephrine": "3992",
    "cefazolin": "2180", "oxytocin": "7824", "morphine": "7052", "phytonadione": "8308", "insulin glargine": "274783",
}


class Chart:
    """One patient's bundle and the shorthand to write it."""

    def __init__(self, key, names, birth, gender, mrn, ssn=None, doctor="okafor", security=None, rng=None, **more):
        self.key, self.b, self.doctor, self.security = key, Bundle(), doctor, security
        self.birth, self.n, self.rng = birth, 0, random.Random(key)
        self.display = names[0]["text"]
        identifiers = [{"use": "usual", "type": hl7("v2-0203", "MR", "Medical record number"),
                        "system": "https://harbourlane.example/mrn", "value": mrn,
                        "assigner": {"display": CLINIC}}]
        if ssn:
            identifiers.append({"use": "official", "type": hl7("v2-0203", "SS", "Social Security number"),
                                "system": "http://hl7.org/fhir/sid/us-ssn", "value": ssn})
        self.me = self.b.put("Patient", key, security=security, identifier=identifiers, active=True, name=names,
                             gender=gender, birthDate=birth, managingOrganization=ref("Organization", "clinic", CLINIC),
                             generalPractitioner=[staff(doctor)], **more)
        self.subject = self.me | {"display": self.display}
        # Who treats the patient, whatever the date: the treatment relationship that opens the chart.
        nurse = "echeverria" if doctor == "okafor" else "kallio"
        self.b.put("CareTeam", f"{key}/CareTeam", security=security, status="active", name=f"Care team: {self.display}",
                   subject=self.subject,
                   participant=[{"role": [{"text": "Physician"}], "member": staff(doctor)},
                                {"role": [{"text": "Nurse"}], "member": staff(nurse)}])

    def put(self, kind, /, **fields):
        self.n += 1
        return self.b.put(kind, f"{self.key}/{kind}/{self.n}", security=fields.pop("security", self.security), **fields)

    def visit(self, day, reason, who=None, hour=9, minute=0, minutes=30, kind="AMB", room="exam1", days=0, status="finished"):
        names = {"AMB": "ambulatory", "IMP": "inpatient encounter", "EMER": "emergency", "VR": "virtual"}
        start = f"{day}T{hour:02}:{minute:02}:00-05:00"
        end = (dt.datetime.fromisoformat(start) + dt.timedelta(days=days, minutes=minutes)).isoformat()
        e = self.put("Encounter", status=status, type=[{"text": reason}], subject=self.subject,
                     **{"class": {"system": HL7 + "v3-ActCode", "code": kind, "display": names[kind]}},
                     participant=[{"type": [hl7("v3-ParticipationType", "ATND", "attender")],
                                   "period": {"start": start}, "individual": staff(who or self.doctor)}],
                     period={"start": start, "end": None if status == "in-progress" else end},
                     reasonCode=[{"text": reason}], serviceProvider=ref("Organization", "clinic", CLINIC),
                     location=[{"location": ref("Location", room)}] if kind != "VR" else None)
        self.now, self.encounter, self.nurse = start, e, "echeverria" if self.doctor == "okafor" else "kallio"
        return e

    def observe(self, category, code, when=None, who=None, **value):
        return self.put("Observation", status="final",
                        category=[hl7("observation-category", category, category.replace("-", " ").capitalize())],
                        code=code, subject=self.subject, encounter=self.encounter, effectiveDateTime=when or self.now,
                        issued=when or self.now, performer=[who or staff(self.nurse)], **value)

    def vital(self, name, value, when=None):
        code, display, unit, ucum, places = VITALS[name]
        if name == "weight" and value < 10:
            places = 2  # babies
        value = round(value, places) if places else round(value)
        return self.observe("vital-signs", concept(LOINC, code, display), when, valueQuantity=quantity(value, unit, ucum))

    def pressure(self, high, low, when=None):
        def part(code, display, value):
            return {"code": concept(LOINC, code, display), "valueQuantity": quantity(round(value), "mmHg", "mm[Hg]")}
        return self.observe("vital-signs", concept(LOINC, "85354-9", "Blood pressure panel with all children optional",
                                                   "Blood pressure"), when,
                            component=[part("8480-6", "Systolic blood pressure", high),
                                       part("8462-4", "Diastolic blood pressure", low)])

    def lab(self, name, value, when=None):
        code, display, unit, ucum, places, low, high = LABS[name]
        value = round(value, places) if places else round(value)
        text = display.split(" [")[0].split(" by ")[0]
        flag = "L" if low is not None and value < low else "H" if high is not None and value > high else "N"
        limits = {"low": quantity(low, unit, ucum) if low is not None else None,
                  "high": quantity(high, unit, ucum) if high is not None else None}
        return self.observe("laboratory", concept(LOINC, code, display, text), when,
                            ref("Organization", "lab", "Tidewater Laboratory"), valueQuantity=quantity(value, unit, ucum),
                            interpretation=[hl7("v3-ObservationInterpretation", flag,
                                                {"L": "Low", "H": "High", "N": "Normal"}[flag])],
                            referenceRange=[limits])

    def report(self, code, display, results, conclusion=None, text=None):
        return self.put("DiagnosticReport", status="final", category=[hl7("v2-0074", "LAB", "Laboratory")],
                        code=concept(LOINC, code, display, text), subject=self.subject, encounter=self.encounter,
                        effectiveDateTime=self.now, issued=self.now,
                        performer=[ref("Organization", "lab", "Tidewater Laboratory")], result=results,
                        conclusion=conclusion)

    def problem(self, code, display, onset, ended=None, text=None, severity=None, category="problem-list-item", **more):
        return self.put("Condition", clinicalStatus=hl7("condition-clinical", "resolved" if ended else "active"),
                        verificationStatus=hl7("condition-ver-status", "confirmed"),
                        category=[hl7("condition-category", category, category.replace("-", " ").capitalize())],
                        severity={"text": severity} if severity else None, code=concept(ICD, code, display, text),
                        subject=self.subject, onsetDateTime=onset, abatementDateTime=ended, recordedDate=onset,
                        recorder=staff(self.doctor), **more)

    def allergy(self, what, reaction, severity, criticality, category, onset, code=None, kind="allergy", note=None):
        return self.put("AllergyIntolerance", clinicalStatus=hl7("allergyintolerance-clinical", "active"),
                        verificationStatus=hl7("allergyintolerance-verification", "confirmed"), type=kind,
                        category=[category], criticality=criticality,
                        code=concept(RX, code, what) if code else {"text": what}, patient=self.subject,
                        onsetDateTime=onset, recordedDate=onset, recorder=staff(self.doctor),
                        reaction=[{"manifestation": [{"text": reaction}], "severity": severity}],
                        note=[{"text": note}] if note else None)

    def no_allergies(self, day):
        return self.put("AllergyIntolerance", clinicalStatus=hl7("allergyintolerance-clinical", "active"),
                        verificationStatus=hl7("allergyintolerance-verification", "confirmed"),
                        code={"text": "No known allergies"}, patient=self.subject, recordedDate=day,
                        recorder=staff(self.doctor))

    def order(self, drug, text, dose, start, status="active", times=None, reason=None, stop=None, intent="order"):
        timing = {"repeat": {"frequency": times, "period": 1, "periodUnit": "d"}} if times else None
        return self.put("MedicationRequest", status=status, intent=intent,
                        medicationCodeableConcept=concept(RX, DRUGS[drug], drug, text), subject=self.subject,
                        authoredOn=start, requester=staff(self.doctor), reasonCode=[{"text": reason}] if reason else None,
                        dosageInstruction=[{"text": dose, "timing": timing, "asNeededBoolean": None if times else True}],
                        dispenseRequest={"validityPeriod": {"start": start, "end": stop}} if stop else None)

    def give(self, order, drug, text, when, value, unit, ucum=None, status="completed", reason=None):
        return self.put("MedicationAdministration", status=status,
                        statusReason=[{"text": reason}] if reason else None,
                        medicationCodeableConcept=concept(RX, DRUGS[drug], drug, text), subject=self.subject,
                        context=self.encounter, effectiveDateTime=when,
                        performer=[{"actor": staff(self.nurse)}], request=order,
                        dosage={"text": f"{value} {unit}", "dose": quantity(value, unit, ucum)} if value else None)

    def vaccine(self, name, day, lot, dose=None):
        code, display = VACCINES[name]
        return self.put("Immunization", status="completed", vaccineCode=concept(CVX, code, display), patient=self.subject,
                        occurrenceDateTime=day, primarySource=True, lotNumber=lot,
                        performer=[{"actor": staff("echeverria")}],
                        protocolApplied=[{"doseNumberPositiveInt": dose}] if dose else None)

    def procedure(self, text, day, note=None, status="completed", where=None):
        return self.put("Procedure", status=status, code={"text": text}, subject=self.subject, performedDateTime=day,
                        performer=[{"actor": staff(self.doctor)}] if not where else None,
                        note=[{"text": note}] if note else None)

    def note(self, title, text, kind=("11506-3", "Progress note"), author=None, when=None, **more):
        return self.put("DocumentReference", status="current", docStatus="final",
                        type=concept(LOINC, *kind), category=[{"text": "Clinical note"}], subject=self.subject,
                        date=(when or self.now), author=[staff(author or self.doctor)], description=title,
                        content=[{"attachment": {"contentType": "text/plain; charset=utf-8", "language": "en",
                                                 "data": base64.b64encode(text.strip().encode()).decode(),
                                                 "title": title, "creation": when or self.now}}],
                        context={"encounter": [self.encounter]}, **more)

    def cover(self, payor, subscriber_id, plan, start, relationship="self", end=None, subscriber=None, order=1):
        name = {"saltmarsh": "Saltmarsh Mutual Health Plan", "lighthouse": "Lighthouse State Care"}[payor]
        self.coverage = self.put("Coverage", status="active" if not end else "cancelled",
                                 identifier=[{"type": hl7("v2-0203", "MB", "Member Number"), "value": subscriber_id,
                                              "system": f"https://harbourlane.example/insurer/{payor}"}],
                                 type=hl7("v3-ActCode", "EHCPOL", "extended healthcare") if payor == "saltmarsh"
                                 else hl7("v3-ActCode", "PUBLICPOL", "public healthcare"),
                                 subscriber=subscriber or self.subject, subscriberId=subscriber_id, beneficiary=self.subject,
                                 relationship=hl7("subscriber-relationship", relationship),
                                 period={"start": start, "end": end}, payor=[ref("Organization", payor, name)], order=order,
                                 **{"class": [{"type": hl7("coverage-class", "plan"), "value": plan, "name": plan}]})
        return self.coverage

    def claim(self, what, amount, created, status="active", paid=None, outcome="complete", code="charge"):
        usd = {"value": amount, "currency": "USD"}
        provider = ref("Organization", "clinic", CLINIC)
        claim = self.put("Claim", status=status, type=hl7("claim-type", "professional"), use="claim", patient=self.subject,
                         created=created, insurer=None, provider=provider, priority=hl7("processpriority", "normal"),
                         insurance=[{"sequence": 1, "focal": True, "coverage": self.coverage}],
                         item=[{"sequence": 1, "productOrService": {"text": what}, "servicedDate": created[:10],
                                "unitPrice": usd, "net": usd, "encounter": [self.encounter]}], total=usd)
        if paid is not None:
            self.put("ClaimResponse", status="active", type=hl7("claim-type", "professional"), use="claim",
                     patient=self.subject, created=created, insurer={"display": "Insurer"}, request=claim, outcome=outcome,
                     disposition="Paid" if paid else "Refused",
                     payment={"type": hl7("ex-paymenttype", "complete"), "amount": {"value": paid, "currency": "USD"}}
                     if paid else None)
        return claim

    def appointment(self, day, hour, minute, minutes, what, who=None, status="booked", arrived="accepted"):
        start = f"{day}T{hour:02}:{minute:02}:00-05:00"
        end = (dt.datetime.fromisoformat(start) + dt.timedelta(minutes=minutes)).isoformat()
        return self.put("Appointment", status=status, description=what, start=start, end=end, minutesDuration=minutes,
                        created="2026-11-16T10:00:00-05:00",
                        participant=[{"actor": self.subject, "required": "required", "status": arrived},
                                     {"actor": staff(who or self.doctor), "required": "required", "status": "accepted"}])

    def plan(self, title, start, activities, goal=None, addresses=None):
        goals = None
        if goal:
            goals = [self.put("Goal", lifecycleStatus="active", description={"text": goal}, subject=self.subject,
                              startDate=start)]
        team = self.put("CareTeam", status="active", name=f"Care team: {title}", subject=self.subject,
                        period={"start": start},
                        participant=[{"role": [{"text": "Physician"}], "member": staff(self.doctor)},
                                     {"role": [{"text": "Nurse"}], "member": staff("echeverria")}])
        return self.put("CarePlan", status="active", intent="plan", title=title, subject=self.subject,
                        period={"start": start}, author=staff(self.doctor), careTeam=[team], addresses=addresses, goal=goals,
                        activity=[{"detail": {"status": "in-progress", "description": a}} for a in activities])

    def tobacco(self, text):
        return self.observe("social-history", concept(LOINC, "72166-2", "Tobacco smoking status"),
                            valueCodeableConcept={"text": text})

    def family(self, relation, code, text, age=None):
        return self.put("FamilyMemberHistory", status="completed", patient=self.subject, date=self.now[:10],
                        relationship=hl7("v3-RoleCode", code, relation),
                        condition=[{"code": {"text": text},
                                    "onsetAge": quantity(age, "years", "a") if age else None}])

    def contact(self, family, given, relation, code, phone):
        return self.put("RelatedPerson", active=True, patient=self.subject,
                        relationship=[hl7("v3-RoleCode", code, relation)],
                        name=[{"family": family, "given": [given]}], telecom=[{"system": "phone", "value": phone}])

    def signs(self, weight=None, height=None, pressure=None, pulse=None, temp=None, spo2=None, breath=None):
        r = self.rng
        if weight:
            self.vital("weight", weight)
        if height:
            self.vital("height", height)
        if weight and height:
            self.vital("bmi", weight / (height / 100) ** 2)
        if pressure:
            self.pressure(*pressure)
        self.vital("pulse", pulse or r.uniform(62, 84))
        self.vital("temp", temp or r.uniform(36.3, 37.1))
        self.vital("spo2", spo2 or r.uniform(96, 99))
        if breath:
            self.vital("breath", breath)


def name(given, family, use="official", text=None, **more):
    given = [given] if isinstance(given, str) else given
    return {"use": use, "text": text or " ".join(given + [family]), "family": family, "given": given} | more


def native(code):
    return {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation", "valueCode": code}]}


def home(line, phone, email=None, language="en", city="Marlow Bay"):
    telecom = [{"system": "phone", "use": "mobile", "value": phone}]
    if email:
        telecom.append({"system": "email", "value": email})
    return {"telecom": telecom, "address": [{"use": "home", "line": [line], "city": city, "state": "ME",
                                             "postalCode": "04999", "country": "US"}],
            "communication": [{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": language}]},
                               "preferred": True}]}


def married(code, display):
    return {"maritalStatus": hl7("v3-MaritalStatus", code, display)}


# ------------------------------------------------------------------ the stories

def rosa():
    c = Chart("rosa", [name(["Rosa", "Inés"], "Delgado-Quinn"), name("Rosa", "Delgado", "maiden")], "1957-04-23",
              "female", "HL-10482", "999-55-4820", **home("18 Gannet Row", "+1 207 555 0182", "rosa.dq@example.org", "es"),
              **married("M", "Married"))
    c.contact("Quinn", "Patrick", "husband", "HUSB", "+1 207 555 0183")
    c.cover("saltmarsh", "SMH-448-201-77", "Saltmarsh Silver", "2019-01-01")
    dm = c.problem("E11.22", "Type 2 diabetes mellitus with diabetic chronic kidney disease", "2017-03-14", text="Type 2 diabetes with kidney disease")
    c.problem("I10", "Essential (primary) hypertension", "2014-06-02", text="High blood pressure")
    c.problem("N18.31", "Chronic kidney disease, stage 3a", "2022-05-11")
    c.problem("E78.5", "Hyperlipidemia, unspecified", "2016-02-09", text="Hyperlipidaemia")
    c.problem("S52.501A", "Unspecified fracture of the lower end of right radius, initial encounter for closed fracture",
              "2021-01-19", "2021-04-02", text="Fracture of the right wrist", category="encounter-diagnosis")
    c.allergy("penicillin", "Anaphylaxis: swelling of the throat, hypotension", "severe", "high", "medication", "1998-08-12",
              DRUGS["penicillin"], note="Treated in the emergency department in 1998; carries an auto-injector.")
    c.allergy("Adhesive plaster", "Itching rash", "mild", "low", "environment", "2015-05-20", kind="intolerance")
    c.order("metformin", "Metformin 500 mg tablet", "Two tablets twice a day with meals", "2017-03-14", times=2, reason="Type 2 diabetes")
    c.order("lisinopril", "Lisinopril 20 mg tablet", "One tablet in the morning", "2022-05-11", times=1, reason="High blood pressure, kidney protection")
    c.order("lisinopril", "Lisinopril 10 mg tablet", "One tablet in the morning", "2014-06-02", status="stopped", times=1, stop="2022-05-11")
    c.order("atorvastatin", "Atorvastatin 20 mg tablet", "One tablet in the evening", "2016-02-09", times=1, reason="Hyperlipidaemia")
    c.order("epinephrine", "Epinephrine 0.3 mg auto-injector", "Into the outer thigh at the first sign of anaphylaxis", "2019-03-01")
    weight, a1c, creatinine, high, ldl = 84.0, 7.4, 0.98, 146, 128
    r = c.rng
    for q in range(28):  # every quarter since January 2020
        day = f"{2020 + q // 4}-{(1, 4, 7, 10)[q % 4]:02}-{7 + (q * 5) % 17:02}"
        c.visit(day, "Diabetes check" if q % 2 else "Diabetes and blood pressure check", hour=8 + q % 5, minute=(q * 15) % 60)
        if q < 9:
            weight, a1c, high = weight + r.uniform(-.4, .7), a1c + r.uniform(-.1, .25), high + r.uniform(-2, 3)
        else:  # spring 2022: treatment stepped up
            weight, a1c, high = weight - r.uniform(.1, .9), a1c - r.uniform(-.08, .2), max(high - r.uniform(.5, 5), 126)
        a1c, creatinine, ldl = max(a1c, 6.6), creatinine + r.uniform(-.02, .04), max(ldl - r.uniform(-6, 8), 78)
        c.signs(weight, 161 if q % 4 == 0 else None, (high + r.uniform(-5, 5), high * .58 + r.uniform(-3, 3)))
        labs = [c.lab("a1c", a1c), c.lab("glucose", a1c * 28.7 - 46.7 + r.uniform(-14, 14)), c.lab("creatinine", creatinine),
                c.lab("potassium", r.uniform(4.0, 5.2))]
        if q % 4 == 0:
            labs += [c.lab("ldl", ldl), c.lab("hdl", r.uniform(42, 51)), c.lab("trig", r.uniform(120, 190)), c.lab("hgb", r.uniform(12.1, 13.6))]
        c.report("24323-8", "Comprehensive metabolic 2000 panel - Serum or Plasma", labs, text="Metabolic panel")
        c.claim("Office visit, established patient", 148.0 + 4 * (q // 4), c.now, paid=112.0 if q < 26 else None)
        if q == 0:
            c.tobacco("Former smoker, stopped in 2004")
            c.family("mother", "MTH", "Type 2 diabetes", 51)
            c.family("father", "FTH", "Myocardial infarction", 63)
        if q == 9:
            c.note("Change of treatment", """
Seen for her quarterly check. HbA1c has crept up over two years, kidney function is slowly falling, albumin in the urine.
Lisinopril raised from 10 to 20 mg. Talked about food, salt and walking; her husband cooks and joined us.
ALLERGY: penicillin, anaphylaxis 1998. Auto-injector in date until 03/2024.
Plan: HbA1c and creatinine every three months, eye clinic this year.""")
        if q == 27:
            c.note("Quarterly diabetes check", """
Feels well, walks forty minutes most days, weight down again. HbA1c 6.6 to 7: at her target.
Creatinine stable within its slow rise, potassium at the upper limit once: repeat in January, no potassium salt.
Feet: pulses present, monofilament felt everywhere. Eye clinic report of June: no retinopathy.
She asked who can read her record. Showed her the access list in the portal.""")
    for y in range(2020, 2027):
        c.vaccine("flu", f"{y}-10-1{y % 7}", f"FL{y}A")
    c.vaccine("ppsv23", "2022-05-11", "PV1177")
    c.vaccine("zoster", "2023-02-02", "ZR20", 1)
    c.vaccine("zoster", "2023-05-04", "ZR31", 2)
    c.procedure("Dilated eye examination", "2026-06-17", "No diabetic retinopathy.")
    c.procedure("Closed reduction of wrist fracture with cast", "2021-01-19")
    c.plan("Diabetes care plan", "2022-05-11", ["Blood test every three months", "Eye examination every year", "Foot check at each visit",
                                                "Forty minutes of walking on five days a week"], "HbA1c below 7 %", [dm])
    c.appointment("2026-12-03", 9, 30, 30, "Blood test and blood pressure", "echeverria")
    c.appointment("2027-01-12", 8, 45, 30, "Diabetes check")
    return c


def thordis():
    c = Chart("thordis", [name("Þórdís", "Ásgeirsdóttir"), name("Thordis", "Asgeirsdottir", "usual")], "1994-02-11", "female",
              "HL-20711", "999-27-1108", "okafor", **home("3 Lighthouse Steps", "+1 207 555 0127", "thordis@example.org", "is"),
              **married("S", "Never Married"))
    c.cover("saltmarsh", "SMH-910-447-02", "Saltmarsh Family", "2023-03-01")
    c.contact("Jónsson", "Birkir", "domestic partner", "DOMPART", "+1 207 555 0128")
    c.allergy("ibuprofen", "Hives", "moderate", "low", "medication", "2018-07-01", DRUGS["ibuprofen"])
    c.problem("O24.410", "Gestational diabetes mellitus in pregnancy, diet controlled", "2026-08-19", "2026-11-14", text="Gestational diabetes")
    c.problem("O80", "Encounter for full-term uncomplicated delivery", "2026-11-14", "2026-11-16", text="Full-term delivery", category="encounter-diagnosis")
    c.problem("D50.9", "Iron deficiency anemia, unspecified", "2026-11-15", text="Iron deficiency anaemia")
    weight = 63.5
    for i, day in enumerate(("2026-04-14", "2026-05-20", "2026-06-17", "2026-07-22", "2026-08-19", "2026-09-16", "2026-10-07", "2026-10-28")):
        c.visit(day, "Antenatal visit", "kallio", 10, 15)
        weight += c.rng.uniform(.7, 1.9)
        c.signs(weight, 168 if i == 0 else None, (112 + i + c.rng.uniform(-4, 4), 70 + c.rng.uniform(-4, 5)))
        if i % 2 == 0:
            c.lab("hgb", 12.6 - .35 * i)
            c.lab("glucose", 88 + 3 * i)
        c.claim("Antenatal visit", 120.0, c.now, paid=96.0)
    stay = c.visit("2026-11-14", "Labour and delivery", "kallio", 3, 40, 60, "IMP", "ward", 2)
    c.signs(77.2, None, (128, 82), 96)
    oxy = c.order("oxytocin", "Oxytocin 10 units by intramuscular injection", "Once after delivery", "2026-11-14T09:50:00-05:00", status="completed", times=1)
    c.give(oxy, "oxytocin", "Oxytocin 10 units", "2026-11-14T09:58:00-05:00", 10, "units", "[iU]")
    apap = c.order("acetaminophen", "Acetaminophen 500 mg tablet", "One or two tablets every six hours if needed", "2026-11-14T11:00:00-05:00")
    for h, status, reason in ((12, "completed", None), (18, "completed", None), (23, "not-done", "Asleep, not woken")):
        c.give(apap, "acetaminophen", "Acetaminophen 500 mg tablet", f"2026-11-14T{h}:05:00-05:00", None if reason else 1000, "mg", status=status, reason=reason)
    c.procedure("Spontaneous vaginal delivery", "2026-11-14T09:52:00-05:00", "Girl, 3,420 g, Apgar 8 and 9.")
    c.report("58410-2", "CBC panel - Blood by Automated count", [c.lab("hgb", 9.6, "2026-11-15T07:10:00-05:00"), c.lab("ferritin", 9, "2026-11-15T07:10:00-05:00"),
             c.lab("plt", 212, "2026-11-15T07:10:00-05:00")], "Iron deficiency anaemia after delivery.", text="Blood count")
    c.note("Delivery note", """
Spontaneous labour at 39 weeks and 4 days. Girl born 09:52, cried at once, 3,420 g. Placenta complete 10:05.
Blood loss about 450 ml. Oxytocin given. No tear that needed stitches.
NO IBUPROFEN: hives in 2018. Acetaminophen for pain.
The baby has a record of her own: HL-20712. Mother and child have the same address and insurance; check the name twice.""",
           ("34117-2", "History and physical note"), "kallio")
    c.note("Discharge summary", """Home on day two with her daughter. Haemoglobin 9.6 g/dL: iron by mouth, check in six weeks.
Glucose test at six weeks because of gestational diabetes.""", ("18842-5", "Discharge summary"), when="2026-11-16T11:00:00-05:00")
    c.vaccine("tdap", "2026-09-16", "TD88")
    c.vaccine("flu", "2026-10-07", "FL2026B")
    c.appointment("2026-12-28", 13, 0, 45, "Six-week check and glucose test")
    return c


def baby():
    c = Chart("baby", [{"use": "temp", "text": "Baby girl Ásgeirsdóttir", "family": "Ásgeirsdóttir", "given": ["Baby girl"]}],
              "2026-11-14", "female", "HL-20712", None, "haddad", **home("3 Lighthouse Steps", "+1 207 555 0127", language="is"),
              multipleBirthBoolean=False,
              contact=[{"relationship": [hl7("v2-0131", "N", "Next-of-Kin")], "name": {"text": "Þórdís Ásgeirsdóttir"}}])
    mother = c.b.put("RelatedPerson", "baby/mother", active=True, patient=c.subject,
                     relationship=[hl7("v3-RoleCode", "MTH", "mother")], name=[name("Þórdís", "Ásgeirsdóttir")],
                     identifier=[{"system": "https://harbourlane.example/mrn", "value": "HL-20711"}],
                     telecom=[{"system": "phone", "value": "+1 207 555 0127"}])
    c.cover("saltmarsh", "SMH-910-447-02", "Saltmarsh Family", "2026-11-14", "child",
            subscriber=ref("Patient", "thordis", "Þórdís Ásgeirsdóttir"))
    c.visit("2026-11-14", "Birth", "kallio", 9, 52, 60, "IMP", "ward", 2)
    c.problem("Z38.00", "Single liveborn infant, delivered vaginally", "2026-11-14", "2026-11-16", text="Liveborn infant", category="encounter-diagnosis")
    c.problem("P59.9", "Neonatal jaundice, unspecified", "2026-11-16", text="Newborn jaundice")
    c.no_allergies("2026-11-14")
    for code, display, value in (("9272-6", "1 minute Apgar Score", 8), ("9274-2", "5 minute Apgar Score", 9)):
        c.observe("survey", concept(LOINC, code, display), valueQuantity=quantity(value, "{score}"))
    weights = ((0, 3.42), (1, 3.28), (2, 3.19), (5, 3.31), (7, 3.44))
    for d, w in weights:
        when = f"2026-11-{14 + d}T10:20:00-05:00"
        c.vital("weight", w, when)
        c.vital("temp", c.rng.uniform(36.6, 37.2), when)
        c.vital("pulse", c.rng.uniform(124, 148), when)
        c.vital("breath", c.rng.uniform(36, 50), when)
        c.vital("spo2", c.rng.uniform(96, 99), when)
        if d in (1, 2, 5, 7):
            c.lab("bili", {1: 6.1, 2: 10.4, 5: 12.8, 7: 9.2}[d], when)
    c.vital("height", 50.5)
    c.vital("head", 34.5)
    k = c.order("phytonadione", "Vitamin K 1 mg by intramuscular injection", "Once after birth", "2026-11-14T10:10:00-05:00", status="completed", times=1)
    c.give(k, "phytonadione", "Vitamin K 1 mg", "2026-11-14T10:31:00-05:00", 1, "mg")
    c.vaccine("hepb", "2026-11-15", "HB502", 1)
    c.note("Newborn examination", """
Term girl, day two. Mother's record: HL-20711. Parents have not chosen a name yet; the record carries a temporary name.
Skin slightly yellow, bilirubin below the line for treatment; check on day five and seven. Feeding well.""", ("34117-2", "History and physical note"), when="2026-11-16T09:15:00-05:00")
    c.appointment("2026-12-14", 9, 0, 30, "One-month check")
    return c


def twin(key, given, mrn, allergic):
    c = Chart(key, [name(given, "Novák-Reyes")], "2015-03-09", "male" if given == "Emil" else "female", mrn, None, "haddad",
              **home("41 Ropewalk", "+1 207 555 0141", language="cs"),
              multipleBirthInteger=1 if given == "Emil" else 2,
              contact=[{"relationship": [hl7("v2-0131", "N", "Next-of-Kin")], "name": {"text": "Jana Nováková"},
                        "telecom": [{"system": "phone", "value": "+1 207 555 0141"}]}])
    c.contact("Nováková", "Jana", "mother", "MTH", "+1 207 555 0141")
    c.cover("lighthouse", "LSC-7714-03" + ("1" if given == "Emil" else "2"), "Lighthouse Kids", "2015-04-01", "child")
    if allergic:
        c.allergy("Peanut", "Anaphylaxis: vomiting, wheeze", "severe", "high", "food", "2019-06-30",
                  note="His twin sister Emma has no allergy: check given name and sex.")
        c.order("epinephrine", "Epinephrine 0.15 mg auto-injector", "Into the outer thigh, then call 911", "2019-07-03")
        c.problem("Z91.010", "Allergy to peanuts", "2019-06-30", text="Peanut allergy")
    else:
        c.no_allergies("2016-03-10")
        c.problem("J45.20", "Mild intermittent asthma, uncomplicated", "2021-11-02", text="Mild asthma")
        c.order("albuterol", "Albuterol 90 mcg inhaler", "Two puffs before sport or when wheezing", "2021-11-02")
    base = 0 if allergic else -.6
    for y in range(2016, 2027):
        c.visit(f"{y}-03-{12 if allergic else 13}", "Well-child visit", hour=14, room="exam2")
        age = y - 2015
        c.signs(9.6 + base + 2.55 * (age - 1) + .06 * age * age, 75 + 6.9 * (age - 1) - .12 * age * age, (92 + age, 54 + age * .8) if age > 3 else None, 112 - 3 * age)
        c.claim("Well-child visit", 95.0, c.now, paid=95.0)
    for v, day, dose in (("hepb", "2015-03-10", 1), ("hepb", "2015-05-11", 2), ("hepb", "2015-09-14", 3), ("dtap", "2015-05-11", 1), ("dtap", "2015-07-13", 2),
                         ("dtap", "2015-09-14", 3), ("ipv", "2015-05-11", 1), ("ipv", "2015-07-13", 2), ("rota", "2015-05-11", 1), ("pcv13", "2015-05-11", 1),
                         ("mmr", "2016-03-14", 1), ("varicella", "2016-03-14", 1), ("mmr", "2019-03-12", 2), ("flu", "2025-10-20", None)):
        c.vaccine(v, day, f"{v[:2].upper()}{day[2:4]}{day[5:7]}", dose)
    c.note("Well-child visit", f"""
Eleven years, well, fourth grade. Growth along the line.
TWIN: {'Emma' if given == 'Emil' else 'Emil'} Novák-Reyes has the same birth date, address and contact.
{'Peanut anaphylaxis in 2019: auto-injector at school and at home, both in date.' if allergic else 'No allergy. The peanut allergy belongs to her brother Emil.'}""")
    c.appointment("2026-12-08", 15, 0 if allergic else 20, 20, "Vaccination")
    return c


def chan():
    c = Chart("chan", [name("美玲", "陳", text="陳美玲") | native("IDE"), name("Mei-ling", "Chan", "usual") | native("ABC")], "1943-12-30", "female",
              "HL-00319", "999-30-4312", **home("9 Customs Quay", "+1 207 555 0190", language="zh-HK"), **married("W", "Widowed"))
    c.contact("Chan", "Derek", "son", "SON", "+1 207 555 0191")
    c.cover("lighthouse", "LSC-0031-901", "Lighthouse Senior", "2009-01-01")
    c.problem("I48.20", "Chronic atrial fibrillation, unspecified", "2018-09-05", text="Atrial fibrillation")
    c.problem("I50.9", "Heart failure, unspecified", "2021-02-17", text="Heart failure")
    c.problem("Z79.01", "Long term (current) use of anticoagulants", "2018-09-05", text="Takes a blood thinner")
    c.allergy("Sulfonamide antibiotics", "Widespread rash", "moderate", "high", "medication", "1987-01-01")
    c.allergy("Shellfish", "Swollen lips", "mild", "low", "food", "1961-01-01")
    warfarin = c.order("warfarin", "Warfarin 2.5 mg tablet", "As written on the INR card, in the evening", "2018-09-05", times=1, reason="Atrial fibrillation")
    c.order("furosemide", "Furosemide 40 mg tablet", "One tablet in the morning", "2021-02-17", times=1, reason="Heart failure")
    weight = 51.0
    for i in range(30):
        month = i + 6
        day = f"{2024 + month // 12}-{month % 12 + 1:02}-{3 + (i * 7) % 21:02}"
        if day > "2026-11-20":
            break
        c.visit(day, "INR check", "echeverria", 11, 0, 15)
        c.lab("inr", min(max(2.5 + c.rng.gauss(0, .35), 1.6), 3.4) if i < 28 else 4.6)
        weight += c.rng.uniform(-.5, .55)
        c.signs(weight, None, (132 + c.rng.uniform(-9, 9), 74 + c.rng.uniform(-6, 6)), 78 + c.rng.uniform(-9, 12), spo2=c.rng.uniform(93, 97))
        if i % 3 == 0:
            c.lab("creatinine", .95 + .01 * i)
            c.lab("potassium", c.rng.uniform(3.6, 4.4))
    c.visit("2026-11-18", "Nosebleed, high INR", hour=16, minutes=50)
    c.lab("inr", 5.1)
    c.lab("hgb", 11.2)
    c.signs(50.2, 152, (124, 70), 92, spo2=94)
    k = c.order("phytonadione", "Vitamin K 2.5 mg by mouth", "Once", "2026-11-18", status="completed", times=1)
    c.give(k, "phytonadione", "Vitamin K 2.5 mg by mouth", "2026-11-18T16:25:00-05:00", 2.5, "mg")
    c.give(warfarin, "warfarin", "Warfarin 2.5 mg tablet", "2026-11-18T18:00:00-05:00", None, "mg", status="not-done", reason="Held: INR 5.1")
    c.note("Nosebleed with INR 5.1", """
Nosebleed for two hours, stopped by pressure. INR 5.1. Her son says she took an antibiotic from a walk-in centre last week.
Warfarin held for two days, vitamin K by mouth, INR again on Friday. Speaks Cantonese: son interpreted; book an interpreter.""")
    c.vaccine("flu", "2026-10-05", "FL2026A")
    c.appointment("2026-11-27", 11, 0, 15, "INR check", "echeverria")
    return c


def farsi():
    c = Chart("alfarsi", [name("محمد", "الفارسي"), name("Mohammed", "Al-Farsi", "usual")], "1979-07-07", "male", "HL-11873", "999-71-0707",
              **home("77 Cannery Street", "+1 207 555 0177", "m.alfarsi@example.org", "ar"), **married("M", "Married"))
    c.cover("saltmarsh", "SMH-220-118-64", "Saltmarsh Gold", "2021-06-01")
    c.problem("J45.40", "Moderate persistent asthma, uncomplicated", "1991-01-01", text="Asthma")
    c.problem("J45.41", "Moderate persistent asthma with (acute) exacerbation", "2026-02-03", "2026-02-10", text="Asthma attack", category="encounter-diagnosis")
    c.allergy("aspirin", "Wheeze", "severe", "high", "medication", "2003-04-04", DRUGS["aspirin"])
    c.allergy("Cat dander", "Sneezing, wheeze", "moderate", "low", "environment", "1990-01-01")
    c.order("fluticasone", "Fluticasone 110 mcg inhaler", "Two puffs twice a day", "2019-10-10", times=2, reason="Asthma")
    c.order("albuterol", "Albuterol 90 mcg inhaler", "Two puffs when wheezing", "2015-03-03", reason="Asthma")
    for i, (day, sat) in enumerate((("2023-05-08", 97), ("2023-11-06", 96), ("2024-05-13", 97), ("2024-12-02", 95), ("2025-06-09", 97), ("2026-02-03", 89), ("2026-02-10", 96), ("2026-08-17", 98))):
        attack = day == "2026-02-03"
        c.visit(day, "Asthma attack" if attack else "Asthma check", kind="EMER" if attack else "AMB", hour=2 if attack else 10)
        c.signs(88 + i * .4, 179 if i == 0 else None, (128, 80), 122 if attack else None, spo2=sat, breath=30 if attack else 15)
        c.observe("exam", concept(LOINC, "19935-6", "Maximum expiratory gas flow Respiratory system airway by Peak flow meter", "Peak flow"),
                  valueQuantity=quantity(210 if attack else 430 + i * 7, "L/min"))
        c.claim("Emergency visit" if attack else "Office visit, established patient", 610.0 if attack else 148.0, c.now, paid=430.0 if attack else 112.0)
        if attack:
            c.note("Asthma attack", "Woke at one, speaks in words, saturation 89 %. Cat visited the flat. Nebulised albuterol three times, home at six with saturation 96 %.")
    c.plan("Asthma action plan", "2026-02-10", ["Green: preventer twice a day", "Yellow: peak flow below 340, double the preventer", "Red: peak flow below 230, call 911"], "No night waking")
    return c


def shevchenko():
    c = Chart("shevchenko", [name("Олександра", "Шевченко"), name("Oleksandra", "Shevchenko", "usual")], "1989-09-17", "female", "HL-30026", "999-17-0989",
              security="R", **home("Flat 12, Tideview Court", "+1 207 555 0112", language="uk"))
    c.cover("saltmarsh", "SMH-505-300-26", "Saltmarsh Gold", "2022-01-01")
    c.no_allergies("2022-03-03")
    c.problem("F32.1", "Major depressive disorder, single episode, moderate", "2025-10-06", text="Depression, moderate")
    c.order("sertraline", "Sertraline 50 mg tablet", "One tablet in the morning", "2025-10-06", times=1, reason="Depression")
    for i, day in enumerate(("2025-10-06", "2025-11-03", "2025-12-15", "2026-03-09", "2026-06-15", "2026-09-14")):
        c.visit(day, "Mental health visit", hour=17, minutes=45)
        c.signs(61 - i * .2, 172 if i == 0 else None, (116, 72))
        c.observe("survey", concept(LOINC, "44261-6", "Patient Health Questionnaire 9 item (PHQ-9) total score [Reported]", "PHQ-9 total score"),
                  valueQuantity=quantity((17, 15, 11, 8, 6, 5)[i], "{score}"))
    c.note("First visit", "Presents the evening news in this town: her record is restricted and every look at it is reviewed. Low mood since the spring, poor sleep. No thoughts of harm. Sertraline started, seen again in four weeks.", when="2025-10-06T17:45:00-05:00")
    return c


def walter():
    c = Chart("walter", [name("Walter", "Pfeiffer")], "1961-10-02", "male", "HL-08855", "999-02-1061", **home("2 Chandler Alley", "+1 207 555 0102"))
    c.cover("saltmarsh", "SMH-771-090-15", "Saltmarsh Bronze", "2015-01-01")
    c.no_allergies("2009-05-14")
    c.problem("K35.80", "Unspecified acute appendicitis", "2009-05-14", "2009-05-20", text="Appendicitis", category="encounter-diagnosis")
    c.problem("M54.50", "Low back pain, unspecified", "2020-02-11", text="Low back pain")
    c.visit("2009-05-14", "Appendicitis", kind="IMP", days=3, room="ward")
    c.procedure("Appendectomy", "2009-05-14T21:10:00-05:00", "Uneventful. Appendix sent to pathology.")
    c.note("Operation note", "Laparoscopic appendectomy for acute appendicitis. Appendix removed whole.", ("18842-5", "Discharge summary"))
    for day in ("2020-02-11", "2022-09-27", "2024-04-16", "2026-04-21"):
        c.visit(day, "Back pain")
        c.signs(91 + c.rng.uniform(-2, 2), 181, (138 + c.rng.uniform(-6, 6), 84))
        c.claim("Office visit, established patient", 148.0, c.now, paid=112.0)
    c.order("ibuprofen", "Ibuprofen 400 mg tablet", "One tablet three times a day with food if needed", "2026-04-21", reason="Back pain")
    c.note("Letter from the insurer", "The insurer asks about an appendectomy billed in July 2026 under his number. He had his in 2009 and was fishing in July. Passed to the privacy officer.")
    return c


def victor():
    c = Chart("victor", [name("Viktor", "Lindgren")], "1972-01-25", "male", "HL-31190", None, **home("General delivery", "+1 207 555 0199"))
    c.cover("saltmarsh", "SMH-771-090-15", "Saltmarsh Bronze", "2026-07-01")
    c.visit("2026-07-18", "Abdominal pain", hour=22, minutes=240, kind="EMER")
    c.signs(74.5, 176, (148, 92), 108, 38.6)
    c.report("58410-2", "CBC panel - Blood by Automated count", [c.lab("wbc", 16.8), c.lab("crp", 94)], text="Blood count")
    c.problem("K35.80", "Unspecified acute appendicitis", "2026-07-18", "2026-07-24", text="Appendicitis", category="encounter-diagnosis")
    cef = c.order("cefazolin", "Cefazolin 2 g into a vein", "Once before the operation", "2026-07-19", status="completed", times=1)
    c.give(cef, "cefazolin", "Cefazolin 2 g", "2026-07-19T00:12:00-05:00", 2, "g")
    c.procedure("Appendectomy", "2026-07-19T00:40:00-05:00", "Perforated appendix removed.")
    c.claim("Appendectomy with one night of stay", 9840.0, c.now, paid=7800.0)
    c.note("Emergency visit", "Came without a photo card; insurance number read out from a telephone. Appendicitis, operated the same night. Did not come to have the stitches out.")
    return c


def edith():
    c = Chart("edith", [name("Edith", "O'Brien-Hallström")], "1931-05-05", "female", "HL-00007", "999-05-0531", **home("Seaview House, room 6", "+1 207 555 0106"),
              deceasedDateTime="2025-02-09T04:20:00-05:00", **married("W", "Widowed"))
    c.contact("Hallström", "Nils", "son", "SON", "+1 207 555 0107")
    c.cover("lighthouse", "LSC-0000-701", "Lighthouse Senior", "2001-01-01", end="2025-02-09")
    c.problem("F03.90", "Unspecified dementia, unspecified severity, without behavioral disturbance, psychotic disturbance, mood disturbance, and anxiety", "2019-03-01", text="Dementia")
    c.problem("I10", "Essential (primary) hypertension", "1990-01-01", text="High blood pressure")
    c.allergy("morphine", "Nausea", "mild", "low", "medication", "2010-03-03", DRUGS["morphine"], kind="intolerance")
    for i in range(10):
        c.visit(f"{2022 + i // 4}-{(2, 5, 8, 11)[i % 4]:02}-2{i % 8}", "Home visit", hour=13)
        c.signs(58 - i * 1.1, None, (144 - i * 2.4, 80 - i), spo2=95 - i * .3)
    c.order("amlodipine", "Amlodipine 5 mg tablet", "One tablet in the morning", "2012-01-01", status="stopped", times=1, stop="2024-11-28")
    c.visit("2025-02-09", "Certification of death", hour=5)
    c.note("Death at home", "Died in her sleep at 04:20, son present. Natural causes. Comfort measures had been agreed in November.")
    return c


def jyoti():
    c = Chart("jyoti", [name("ज्योति", "शर्मा"), name("Jyoti", "Sharma", "usual")], "1971-11-22", "female", "HL-14420", "999-22-1171",
              **home("5 Foundry Court", "+1 207 555 0155", "jyoti.s@example.org", "hi"), **married("D", "Divorced"))
    c.cover("saltmarsh", "SMH-144-200-31", "Saltmarsh Silver", "2018-01-01")
    c.no_allergies("2018-02-02")
    c.problem("E03.9", "Hypothyroidism, unspecified", "2018-02-02", text="Underactive thyroid")
    c.order("levothyroxine", "Levothyroxine 75 mcg tablet", "One tablet before breakfast", "2024-02-06", times=1, reason="Underactive thyroid")
    c.order("levothyroxine", "Levothyroxine 50 mcg tablet", "One tablet before breakfast", "2018-02-02", status="stopped", times=1, stop="2024-02-06")
    for i, tsh in enumerate((11.8, 6.2, 4.9, 3.8, 3.1, 4.4, 6.9, 5.2, 2.6, 2.2)):
        c.visit(f"{2018 + i if i < 9 else 2026}-0{2 if i < 9 else 8}-0{1 + i % 8}", "Thyroid check", hour=9, minute=45)
        c.lab("tsh", tsh)
        c.lab("hgb", 12.4 + .1 * i)
        c.lab("ldl", 118 - 2 * i)
        c.signs(72 - i * .5, 157 if i % 3 == 0 else None, (122 + c.rng.uniform(-5, 5), 76))
        c.claim("Office visit, established patient", 140.0, c.now, paid=104.0)
    c.procedure("Screening mammography, both breasts", "2025-11-18", "No sign of malignancy.")
    c.vaccine("flu", "2026-10-19", "FL2026C")
    c.note("Thyroid check", "Energy back since the dose was raised in 2024. TSH 2.2. Same dose, next test in a year.")
    return c


def lukasz():
    c = Chart("lukasz", [name(["Łukasz", "Jan"], "d’Arcy-Smythe"), {"use": "nickname", "text": "Luki"}], "2003-08-29", "male", "HL-31204", "999-29-0803",
              **home("Bosun's Loft", "+1 207 555 0129", "luki@example.org", "pl"))
    c.cover("saltmarsh", "SMH-312-040-08", "Saltmarsh Student", "2026-09-01")
    c.no_allergies("2026-09-10")
    c.visit("2026-09-10", "Sports examination", hour=15)
    c.signs(76.3, 184, (118, 68), 54)
    c.tobacco("Never smoked")
    c.vaccine("hpv9", "2026-09-10", "HP90", 1)
    c.note("Sports examination", "Rower, fit to compete. Resting pulse 54 with a normal rhythm.")
    c.visit("2026-11-20", "Sprained ankle", hour=18)
    c.problem("S93.401A", "Sprain of unspecified ligament of right ankle, initial encounter", "2026-11-20", text="Sprained ankle")
    c.order("ibuprofen", "Ibuprofen 400 mg tablet", "One tablet three times a day for five days", "2026-11-20", times=3, stop="2026-11-25")
    return c


def wiranti():
    c = Chart("wiranti", [{"use": "official", "text": "Wiranti", "given": ["Wiranti"]}], "1990", "female", "HL-31211", None,
              **home("Crew of MV Mutiara, pier 4", "+1 207 555 0111", language="id"))
    c.appointment("2026-12-01", 10, 30, 45, "First visit: new patient, one name, year of birth only")
    return c


PATIENTS = [rosa, thordis, baby, lambda: twin("emil", "Emil", "HL-15031", True), lambda: twin("emma", "Emma", "HL-15032", False), chan, farsi,
            shevchenko, walter, victor, edith, jyoti, lukasz, wiranti]


def main():
    lines = [clinic().line()]
    counts = []
    for make in PATIENTS:
        c = make()
        lines.append(c.b.line())
        counts.append((len(c.b.entries), c.me["reference"], c.display))
    text = "\n".join(lines) + "\n"
    out = HERE / "clinic.ndjson.zst"
    if "--check" in sys.argv[1:]:
        have = subprocess.run(["zstd", "-dcq", str(out)], capture_output=True, check=True).stdout.decode()
        sys.exit(0 if have == text else "demo/clinic.ndjson.zst is not what demo/make.py writes")
    subprocess.run(["zstd", "-19", "-qf", "-o", str(out)], input=text.encode(), check=True)
    for row in counts:
        print(*row)
    print(sum(r[0] for r in counts), "resources of patients,", len(text), "bytes,", out.stat().st_size, "packed")


if __name__ == "__main__":
    main()

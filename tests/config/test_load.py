from decimal import Decimal
from ipaddress import ip_network
from pathlib import Path

import pytest

from app.config.load import ConfigInvalid, load, parse
from app.config.schema import EVERYONE
from app.outbound.policy import Reach

ISSUED = """
providers: {lab: {kind: openai, base_url: http://127.0.0.1:9001/v1, api_key_env: LAB_KEY}}
models:
  big:   {provider: lab, model: ok,   input_usd_per_mtok: 2.0, output_usd_per_mtok: 8.0, context_tokens: 128000}
  small: {provider: lab, model: ok2,  input_usd_per_mtok: 0.1, output_usd_per_mtok: 0.4}
routes:
  default:
    {candidates: [big, small], policy: order, timeout_s: 20, first_token_timeout_s: 5, retries: 2, hedge_after_s: null}
  summarize: {candidates: [small, big], policy: cost, min_quality: 0.6}
tenants:
  acme: {budget_usd_month: 50, requests_per_minute: 600, tokens_per_minute: 200000, concurrent_runs: 20,
         models: [big, small], degrade: [{at: 0.8, route: summarize}, {at: 1.0, answer: extractive}]}
"""
SECRETS = {"LAB_KEY": "s3cret"}


def faults_of(text: str, **secrets: str) -> list[tuple[str, int, str]]:
    with pytest.raises(ConfigInvalid) as raised:
        parse(text, SECRETS | secrets)
    return [(fault.path, fault.line, fault.message) for fault in raised.value.faults]


def test_the_documented_file_is_read_as_it_is_written():
    config = parse(ISSUED, SECRETS)
    assert config.models["big"].input_usd_per_mtok == Decimal("2.0")
    assert config.routes["summarize"].min_quality == 0.6
    assert [step.at for step in config.tenants["acme"].degrade] == [0.8, 1.0]
    assert config.model_names("default") == ("big", "small")
    assert config.model_names("small") == ("small",)


def test_places_inside_are_listed_for_each_use():
    text = "outbound: {documents: {hosts: [Wiki.corp], networks: [10.1.0.0/16], public: false}}"
    outbound = parse(text, SECRETS).outbound
    reach = Reach.of(outbound.documents)
    assert (reach.hosts, reach.networks, reach.public) == ({"wiki.corp"}, (ip_network("10.1.0.0/16"),), False)
    assert Reach.of(outbound.webhooks) == Reach.of(outbound.oidc) == Reach()


def test_an_empty_file_is_a_configuration_without_limits():
    config = parse("", SECRETS)
    assert config.tenant("anyone").budget_usd_month is None


def test_a_tenant_that_is_not_listed_has_the_allowance_of_everyone():
    config = parse(f"tenants: {{'{EVERYONE}': {{requests_per_minute: 3}}}}", SECRETS)
    assert config.tenant("unheard-of").requests_per_minute == 3


@pytest.mark.parametrize(
    ("broken", "path", "line", "words"),
    [
        ("models:\n  big: {provider: lab, model: ok, colour: red}", "models.big.colour", 2, "no such key"),
        ("nonsense: 1", "nonsense", 1, "no such key"),
        ("models:\n  big:\n    provider: lab\n    model: ok\n    input_usd_per_mtok: -1\n    output_usd_per_mtok: 1",
         "models.big.input_usd_per_mtok", 5, "must be at least 0"),
        ("providers: {p: {kind: scripted}}\nmodels:\n  x:\n    provider: p\n    model: x\n    query_prefix: 'query: '",
         "models.x.query_prefix", 6, "only an embedding model"),
        ("providers: {p: {kind: onnx, path: x}}\nmodels:\n  x:\n    provider: p\n    model: x\n    kind: embedding\n"
         "    passage_prefix: [passage]", "models.x.passage_prefix", 7, "must be text"),
        ("models: {a: {provider: nowhere, model: x}}", "models.a.provider", 1, "no provider"),
        ("routes:\n  a: {candidates: [b]}\n  b: {candidates: [a]}", "routes.a.candidates", 2, "a -> b -> a"),
        ("routes:\n  a: {candidates: [a]}", "routes.a.candidates", 2, "a -> a"),
        ("alerts:\n  webhook_secret_env: NO_SUCH", "alerts.webhook_secret_env", 2, "the environment has no NO_SUCH"),
        ("outbound:\n  oidc: {hosts: ['https://a.b/c']}", "outbound.oidc.hosts.0", 2, "must match"),
        ("outbound: {documents: {networks: [10.0.0.0/33]}}", "outbound.documents.networks.0", 1, "network"),
        ("outbound: {webhook_secret_env: ABSENT}", "outbound.webhook_secret_env", 1, "environment has no ABSENT"),
        ("routes:\n  a: {candidates: [ghost]}", "routes.a.candidates.0", 2, "no model or route"),
        ("routes:\n  a: {candidates: []}", "routes.a.candidates", 2, "must have at least 1"),
        ("providers:\n  p: {kind: openai, base_url: http://x/v1, api_key_env: ABSENT}", "providers.p.api_key_env", 2,
         "environment has no ABSENT"),
        ("providers: {p: {kind: openai}}", "providers.p", 1, "needs base_url"),
        ("providers: {p: {kind: openai, base_url: 'file:///etc/passwd'}}", "providers.p", 1, "http"),
        ("providers: {p: {kind: openai, base_url: 'http://'}}", "providers.p", 1, "name a host"),
        ("providers: {p: {kind: openai, base_url: 'http://a:many/v1'}}", "providers.p", 1, "Port"),
        ("providers: {p: {kind: openai, base_url: 'http://[::1/v1'}}", "providers.p", 1, "IPv6"),
        ("providers: {p: {kind: magic}}", "providers.p.kind", 1, "must be 'openai', "),
        ("tenants:\n  acme:\n    budget_usd_month: .nan", "tenants.acme.budget_usd_month", 3, "finite"),
        ("tenants:\n  acme:\n    budget_usd_month: 1\n    budget_usd_month: 900", "tenants.acme.budget_usd_month", 4,
         "twice"),
        ("tenants: {acme: {models: [ghost]}}", "tenants.acme.models.0", 1, "no model or route"),
        ("tenants: {acme: {degrade: [{at: 0.9, answer: refuse}, {at: 0.5, answer: refuse}]}}", "tenants.acme", 1,
         "must rise"),
        ("tenants: {acme: {users: {ann: {users: {}}}}}", "tenants.acme.users.ann.users", 1, "no such key"),
        ("models: {pilothouse/rag: {provider: p, model: x}}\nproviders: {p: {kind: scripted}}",
         "models.pilothouse/rag", 1, "graphs"),
        ("routes: {x: {candidates: [extractive]}}\nmodels: {x: {provider: p, model: x}}\n"
         "providers: {p: {kind: scripted}}", "routes.x", 1, "a model has this name too"),
        ("models: [1, 2", "", 1, "expected"),
        ("- a\n- b", "", 1, "must be a mapping"),
        ("a: &x [1]\nb: *x", "", 2, "aliases are not allowed"),
        ("safe_answer: 'a\n\x01'", "", 2, "no character U+0001"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_path_and_line(broken: str, path: str, line: int, words: str):
    assert any((path, line) == (found[0], found[1]) and words in found[2] for found in faults_of(broken)), faults_of(
        broken
    )


@pytest.mark.parametrize(
    ("broken", "path", "words"),
    [
        ("limits:\n  max_n: many", "limits.max_n", "must be a whole number"),
        ("limits:\n  max_n: 1.5", "limits.max_n", "must be a whole number"),
        ("limits:\n  max_n:", "limits.max_n", "must be a whole number"),
        ("limits:\n  queue_wait_s: long", "limits.queue_wait_s", "must be a number"),
        ("limits:\n  run_cost_usd: much", "limits.run_cost_usd", "must be a number"),
        ("limits:\n  run_cost_usd: true", "limits.run_cost_usd", "must be a number, not true or false"),
        ("limits:\n  max_n: yes", "limits.max_n", "must be a number, not true or false"),
        ("limits:\n  retry_share: on", "limits.retry_share", "must be a number, not true or false"),
        ("limits:\n  queue_length: 0100", "limits.queue_length", "must be written in decimal digits"),
        ("limits:\n  queue_length: 0x10", "limits.queue_length", "must be written in decimal digits"),
        ("limits:\n  queue_wait_s: 1:30", "limits.queue_wait_s", "must be written in decimal digits"),
        ("limits:\n  queue_length: " + "9" * 5_000, "limits.queue_length", "must be written in decimal digits"),
        ("limits:\n  <<: {max_n: 3}", "limits.<<", "keys are not merged here"),
        ("limits:\n  run_cost_usd: .inf", "limits.run_cost_usd", "must be a finite number"),
        ("limits:\n  3", "limits", "must be a mapping of keys to values"),
        ("limits:\n  max_m: 3", "limits.max_m", "there is no such key"),
        ("limits:\n  max_n: 0", "limits.max_n", "must be at least 1"),
        ("limits:\n  max_n: 129", "limits.max_n", "must be at most 128"),
        ("limits:\n  queue_wait_s: 0", "limits.queue_wait_s", "must be more than 0.0"),
        ("providers:\n  p: {}", "providers.p.kind", "the key is missing"),
        ("routes:\n  r: {candidates: x}", "routes.r.candidates", "must be a list"),
        ("routes:\n  r: {candidates: []}", "routes.r.candidates", "must have at least 1 in its list"),
        ("routes:\n  r: {candidates: [x], policy: best}", "routes.r.policy",
         "must be 'order', 'cost', 'latency' or 'quality'"),
        ("safe_answer:\n  [sorry]", "safe_answer", "must be text"),
        ("safe_answer:\n  ''", "safe_answer", "must not be shorter than 1 characters"),
        ("outbound:\n  oidc: {public: perhaps}", "outbound.oidc.public", "must be true or false"),
        ("outbound:\n  oidc: {networks: [all]}", "outbound.oidc.networks.0",
         "must be an IPv4 or IPv6 network, as 10.1.0.0/16"),
    ],
)  # fmt: skip
def test_each_kind_of_fault_says_in_our_words_what_may_stand_there(broken: str, path: str, words: str):
    ((at, line, told),) = faults_of(broken)
    assert (at, told) == (path, words)
    assert line == (2 if "." in path else 1)


TWO = "providers: {p: {kind: scripted}}\nmodels: {a: {provider: p, model: x}, b: {provider: p, model: y}}\n"


@pytest.mark.parametrize(
    ("tenant", "path"),
    [
        ("{models: [a], degrade: [{at: 0.8, route: b}]}", "degrade.0.route"),
        ("{models: [a], degrade: [{at: 0.8, route: a}], users: {ann: {degrade: [{at: 1, route: both}]}}}", None),
        ("{models: [a], users: {ann: {degrade: [{at: 1, route: b}]}}}", "users.ann.degrade.0.route"),
        ("{models: [both], keys: {k: {models: [a], degrade: [{at: 1, route: b}]}}}", "keys.k.degrade.0.route"),
    ],
)
def test_a_step_of_the_ladder_may_not_lead_where_the_caller_may_use_nothing(tenant: str, path: str | None):
    text = TWO + f"routes: {{both: {{candidates: [a, b]}}}}\ntenants: {{acme: {tenant}}}"
    if path is None:
        parse(text, SECRETS)
        return
    ((at, _, told),) = faults_of(text)
    assert at == f"tenants.acme.{path}"
    assert "none of the models of 'b' is among those allowed" in told


def test_a_cycle_of_routes_to_re_rank_is_refused_and_not_followed():
    assert faults_of("routes:\n  r: {candidates: [r]}\nretrieval: {rerank: r}")[0][2].endswith("r -> r")


def test_all_faults_are_told_at_once_in_the_order_of_the_file():
    faults = faults_of("models:\n  a: {provider: x, model: y, z: 1}\n  b: {provider: x, model: 7}\nq: 1")
    assert [line for _, line, _ in faults] == [2, 3, 4]


def test_a_secret_is_never_repeated_in_what_is_said():
    with pytest.raises(ConfigInvalid) as raised:
        parse("providers: {p: {kind: openai, base_url: http://x/v1, api_key: sk-very-secret}}", SECRETS)
    assert "sk-very-secret" not in str(raised.value)


def test_a_file_that_is_absent_or_binary_is_refused_by_name(tmp_path: Path):
    with pytest.raises(ConfigInvalid, match=r"nowhere[.]yaml cannot be used"):
        load(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigInvalid, match="cannot be read"):
        load(tmp_path / "binary.yaml")


def test_deep_nesting_is_refused_and_does_not_exhaust_the_stack():
    with pytest.raises(ConfigInvalid):
        parse("[" * 50_000, SECRETS)

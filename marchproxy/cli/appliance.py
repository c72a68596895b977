"""`marchproxy appliance`: settings of the appliance as a whole."""

import typer

from marchproxy.cli.editing import Editor
from marchproxy.cli.errors import ExitCode
from marchproxy.cli.fields import Field, number, on_off, seconds
from marchproxy.cli.framework import noun, verb
from marchproxy.cli.options import TABLE, OutputOption
from marchproxy.model.appliance import SETTINGS_NAME
from marchproxy.model.change import Kind

app = noun("Manage the settings of the appliance as a whole")

_IDLE = "Silence that ends"
FIELDS = (
    Field("audit", "--audit", "on|off", "Report everything that would be denied, and let it through", on_off),
    Field("refusal", "--refusal", "HOW", "What a denied client is told: answer (unless given) or drop"),
    Field(
        "refusals_per_second",
        "--refusals-per-second",
        "N",
        "Answers to denied packets for each processor; 1000 unless given",
        number,
    ),
    Field(
        "flow_table",
        "--flow-table",
        "N",
        "Entries, two for each flow; 1048576 unless given; as of the next loading of programs",
        number,
    ),
    Field(
        "timeout_tcp_established", "--timeout-tcp-established", "TIME", f"{_IDLE} a TCP flow; 124m", seconds
    ),
    Field("timeout_tcp_closing", "--timeout-tcp-closing", "TIME", f"{_IDLE} one that closes; 5m", seconds),
    Field("timeout_tcp_opening", "--timeout-tcp-opening", "TIME", f"{_IDLE} one that opens; 1m", seconds),
    Field("timeout_udp", "--timeout-udp", "TIME", f"{_IDLE} a UDP flow; 3m", seconds),
    Field(
        "timeout_udp_unanswered",
        "--timeout-udp-unanswered",
        "TIME",
        f"{_IDLE} one without answer; 30s",
        seconds,
    ),
    Field("timeout_icmp", "--timeout-icmp", "TIME", f"{_IDLE} an ICMP flow; 30s", seconds),
    Field("tunnel_idle", "--tunnel-idle", "TIME", f"{_IDLE} a tunnel that is not the kernel's; 1h", seconds),
    Field(
        "tunnel_lifetime",
        "--tunnel-lifetime",
        "TIME",
        "End of every such tunnel; 0 (unless given): none",
        seconds,
    ),
    Field(
        "handoff_bytes", "--handoff-bytes", "N", "Bytes after which the kernel takes a tunnel; 65536", number
    ),
    Field("handoff_seconds", "--handoff-seconds", "TIME", "Age at which it does; 1s; both 0: never", seconds),
    Field(
        "resolvers",
        "--resolver",
        "ADDR[:PORT]",
        "DNS server, in order; may be repeated; the system's unless given",
        many=True,
    ),
    Field(
        "private_answers",
        "--private-answer",
        "NAME",
        "Host name, or *.NAME, that may resolve to private addresses; may be repeated",
        many=True,
    ),
    Field(
        "certificate_warning",
        "--certificate-warning",
        "TIME",
        "How long before a certificate expires that is warned of; 30d; 0: not before",
        seconds,
    ),
    Field(
        "enterprise_number",
        "--enterprise-number",
        "N",
        "Yours from IANA, which names our own fields in syslog and IPFIX; 32473, the one for examples",
        number,
    ),
)
EDITOR = Editor(Kind.SETTINGS, {})


@verb(app, "show", "marchproxy appliance show", "marchproxy appliance show --output json | jq .flow_table")
def show(context: typer.Context, output: OutputOption = TABLE) -> None:
    """Show all settings of the appliance

    Timeouts are in seconds.
    """
    EDITOR.show(context, SETTINGS_NAME, "", output)


@verb(
    app,
    "set",
    "marchproxy appliance set --audit on",
    "marchproxy appliance set --refusal drop --timeout-udp 2m",
    "marchproxy appliance set --resolver 192.0.2.53 --resolver 192.0.2.54:5353",
    "marchproxy appliance set --timeout-udp '' --resolver ''",
    fields=FIELDS,
)
def change(context: typer.Context, output: OutputOption = TABLE) -> ExitCode:
    """Change settings of the appliance

    Only the flags that are given change anything; lists are replaced whole. An empty value, such as
    --timeout-udp '', returns a setting to its default. Times are 90, 30s, 10m, 2h or 7d.
    """
    return EDITOR.change(context, SETTINGS_NAME, "", output)

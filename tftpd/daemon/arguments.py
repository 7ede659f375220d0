"""The command line of `tftpd`."""

import argparse

import tftpd


def parser() -> argparse.ArgumentParser:
    """What understands it; `command` names the subcommand."""
    top = argparse.ArgumentParser(prog="tftpd", description="A TFTP server on Twisted.")
    version = f"tftpd {tftpd.__version__}"
    top.add_argument("--version", action="version", version=version, help="show the version")
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")

    run = commands.add_parser("run", help="serve in the foreground, as `twistd -n tftp` does")
    run.add_argument("--config", "-c", required=True, metavar="FILE", help="the YAML file")

    check = commands.add_parser("check", help="report every problem of a configuration")
    check.add_argument("config", metavar="FILE", help="the YAML file")

    commands.add_parser("schema", help="print the JSON Schema of the configuration")
    return top

"""The `slmkit` program: its commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from slmkit._version import __version__
from slmkit.cli import adopt, bench, catalog, compare, convert, demo, doctor, export, pull, quantize, recipe, rm, show
from slmkit.cli import list as list_command
from slmkit.cli import verify as verify_command
from slmkit.cli.output import current, open_output
from slmkit.errors import DiskFullError, SlmkitError

INTERRUPTED = 130


class Boundary(TyperGroup):
    """Known errors become one line and a hint; an unknown one keeps its traceback, because it is a bug."""

    def invoke(self, ctx: Any) -> Any:
        open_output()
        try:
            return super().invoke(ctx)
        except SlmkitError as error:
            current().error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            current().errors.print("interrupted: what was finished is kept, run the same command again to go on")
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:  # the reader of our pipe has left, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            full = DiskFullError(f"no space left on the disk: {error}", hint="`slmkit list` shows sizes")
            current().error(full)
            raise typer.Exit(full.exit_code) from error


app = typer.Typer(
    cls=Boundary,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from slmkit.backends.llamacpp.child import installed

        typer.echo(f"slmkit {__version__} ({installed() or 'no engine: pip install slmkit[engine]'})")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Versions of slmkit and its engine.")
    ] = False,
) -> None:
    """From a Hugging Face id to the smallest, fastest GGUF that is still good on your machine."""


_MAKE, _MEASURE, _KEEP = "Make", "Measure", "Keep"

app.command("demo", rich_help_panel=_MAKE)(demo.demo)
app.command("pull", rich_help_panel=_MAKE)(pull.pull)
app.command("convert", rich_help_panel=_MAKE)(convert.convert)
app.command("quantize", rich_help_panel=_MAKE)(quantize.quantize)
app.command("export", rich_help_panel=_MAKE)(export.export)
app.add_typer(recipe.app, name="recipe", rich_help_panel=_MAKE)
app.command("bench", rich_help_panel=_MEASURE)(bench.bench)
app.command("compare", rich_help_panel=_MEASURE)(compare.compare)
app.command("doctor", rich_help_panel=_MEASURE)(doctor.doctor)
app.command("catalog", rich_help_panel=_KEEP)(catalog.catalog)
app.command("list", rich_help_panel=_KEEP)(list_command.list_models)
app.command("show", rich_help_panel=_KEEP)(show.show)
app.command("adopt", rich_help_panel=_KEEP)(adopt.adopt)
app.command("verify", rich_help_panel=_KEEP)(verify_command.verify)
app.command("rm", rich_help_panel=_KEEP)(rm.rm)


def main() -> None:
    """Entry point."""
    app()

"""The `slmkit` program: its commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup

from slmkit._version import __version__
from slmkit.cli import (
    adopt,
    bench,
    card,
    catalog,
    check,
    compare,
    convert,
    demo,
    diff,
    doctor,
    export,
    gc,
    get,
    imatrix,
    inspect,
    lineage,
    merge,
    pick,
    plan,
    pull,
    quality,
    quantize,
    recipe,
    recommend,
    rm,
    runs,
    show,
    split,
)
from slmkit.cli import list as list_command
from slmkit.cli import verify as verify_command
from slmkit.cli.output import current, open_output
from slmkit.errors import CannotWriteError, DiskFullError, InterruptedByUserError, SlmkitError, UsageError, is_disk_full

_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_TypedWrong: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for a wrong command, option or argument; it exports only this child of it."""


class Boundary(TyperGroup):
    """Known errors become one line and a hint; an unknown one keeps its traceback, because it is a bug."""

    def invoke(self, ctx: Any) -> Any:
        open_output(as_json="--json" in ctx.args)
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # here, where a reader that has left is known
        except SlmkitError as error:
            raise _exit(error) from error
        except _TypedWrong as error:
            if not current().as_json:
                raise  # Typer shows it with the command's usage
            raise _exit(UsageError(cast(typer.BadParameter, error).format_message())) from error
        except KeyboardInterrupt as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            resumable = command is not None and any("--resume" in param.opts for param in command.params)
            raise _exit(InterruptedByUserError(resumable=resumable)) from error
        except BrokenPipeError as error:  # the reader of our pipe has left, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from error
        except OSError as error:
            raise _exit(_told(error)) from error
        return result


def _exit(error: SlmkitError) -> typer.Exit:
    current().error(error)
    return typer.Exit(error.exit_code)


def _told(error: OSError) -> SlmkitError:
    """What the system refuses whoever asks, in our words; anything else is a bug and goes on."""
    if is_disk_full(error):
        return DiskFullError(f"no space left on the disk: {error}", hint="`slmkit list` shows sizes")
    if error.errno in _FORBIDDEN and error.filename is not None:
        where = error.filename2 or error.filename
        return CannotWriteError(
            f"{where}: {error.strerror}", hint="choose another path; models are kept in SLMKIT_HOME, if that is it"
        )
    raise error


app = typer.Typer(
    cls=Boundary,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from slmkit.backends.llamacpp.child import installed, llama_cpp_commit

        engine = installed() or "no engine: pip install 'slmkit[engine]'"
        commit = llama_cpp_commit()
        typer.echo(f"slmkit {__version__} ({engine}{f', llama.cpp {commit}' if commit else ''})")
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
app.command("imatrix", rich_help_panel=_MAKE)(imatrix.imatrix)
app.command("export", rich_help_panel=_MAKE)(export.export)
app.command("split", rich_help_panel=_MAKE)(split.split)
app.command("merge", rich_help_panel=_MAKE)(merge.merge)
app.add_typer(recipe.app, name="recipe", rich_help_panel=_MAKE)
app.command("plan", rich_help_panel=_MEASURE)(plan.plan)
app.command("bench", rich_help_panel=_MEASURE)(bench.bench)
app.command("quality", rich_help_panel=_MEASURE)(quality.quality)
app.command("pick", rich_help_panel=_MEASURE)(pick.pick)
app.command("recommend", rich_help_panel=_MEASURE)(recommend.recommend)
app.command("check", rich_help_panel=_MEASURE)(check.check)
app.command("compare", rich_help_panel=_MEASURE)(compare.compare)
app.command("card", rich_help_panel=_MEASURE)(card.card)
app.add_typer(runs.app, name="runs", rich_help_panel=_MEASURE)
app.command("diff", rich_help_panel=_MEASURE)(diff.diff)
app.command("doctor", rich_help_panel=_MEASURE)(doctor.doctor)
app.command("catalog", rich_help_panel=_KEEP)(catalog.catalog)
app.command("list", rich_help_panel=_KEEP)(list_command.list_models)
app.command("show", rich_help_panel=_KEEP)(show.show)
app.command("inspect", rich_help_panel=_KEEP)(inspect.inspect)
app.command("adopt", rich_help_panel=_KEEP)(adopt.adopt)
app.command("verify", rich_help_panel=_KEEP)(verify_command.verify)
app.command("rm", rich_help_panel=_KEEP)(rm.rm)
app.command("lineage", rich_help_panel=_KEEP)(lineage.lineage)
app.command("gc", rich_help_panel=_KEEP)(gc.gc)
app.command("get", rich_help_panel=_KEEP)(get.get)


def main() -> None:
    """Entry point."""
    app(prog_name="slmkit")

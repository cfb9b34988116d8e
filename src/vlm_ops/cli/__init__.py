"""The command line: one file a group of commands, nothing heavy imported before it is needed."""

from vlm_ops.cli.safe_path import leave_out_working_folder


def main() -> None:
    """Run the command line; errors of vlm-ops end it with a message and exit code 1."""
    leave_out_working_folder()
    # Behind that: what these import is not to be found in the working folder.
    from vlm_ops.cli.commands import app
    from vlm_ops.cli.console import guarded

    guarded(app)

"""What plug-ins must do, as checks that their authors run with one command."""

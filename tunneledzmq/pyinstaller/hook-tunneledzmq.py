"""For PyInstaller: which modules are needed as files, too."""

# Another interpreter runs it, whatever is inside the program (see openssh/command.py).
module_collection_mode = {"tunneledzmq.gateway.openssh.helper": "pyz+py"}

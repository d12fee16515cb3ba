"""Python's torch out of the folder that .libtorch, or LIBTORCH, points at: `import light_torch`, then `import torch`.

The wheels that `make setup` fetches where there is no GPU lack CUDA's libraries. torch's Python part is linked with
them, but calls nothing in them on a CPU, so an empty library in the place of each missing one lets it load.
"""

import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

folder = Path(os.environ.get("LIBTORCH") or Path(__file__).parent.parent / ".libtorch").resolve()
if not (folder / "__init__.py").exists():
    sys.exit(f"error: `{folder}` is libtorch without Python's torch\nhint: unset LIBTORCH and run `make setup`")
sys.path.append(str(folder.parent))

with tempfile.TemporaryDirectory() as empty:
    while True:
        try:
            ctypes.CDLL(folder / "lib/libtorch_python.so", mode=os.RTLD_LAZY | os.RTLD_GLOBAL)
            break
        except OSError as error:
            missing = re.match(r"(lib(?:cu|nccl|nvshmem)\S+): cannot open shared object file", str(error))
            if not missing:
                raise
        library = f"{empty}/{missing[1]}"
        subprocess.run(["g++", "-shared", "-x", "c++", "/dev/null", f"-Wl,-soname,{missing[1]}", "-o", library], check=True)
        ctypes.CDLL(library, mode=os.RTLD_GLOBAL)

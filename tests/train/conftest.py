import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "dataset"))  # where `trees` lies
sys.path.insert(0, str(Path(__file__).parent))  # where `runs` lies

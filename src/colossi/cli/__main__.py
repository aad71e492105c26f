"""python -m colossi.cli"""

from colossi.cli import main

main()

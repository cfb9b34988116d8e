"""End with 0 if an address answers with 200: healthy.py URL. The image has no curl."""

import sys
import urllib.request

urllib.request.urlopen(sys.argv[1], timeout=8)

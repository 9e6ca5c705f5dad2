"""The views that rich draws. Imported only by the commands that draw; everything here is made from the JSON that `-o json` prints."""

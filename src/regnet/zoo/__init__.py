"""The model zoo: a card for each published set of weights, and their verified download."""

"""Images as users have them: sources, archives, labelled data sets."""

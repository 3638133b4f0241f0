"The ground floor: errors, files, secrets, settings, progress and how things show themselves."

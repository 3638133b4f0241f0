"Deployment: exact export, bundle, registry and service."

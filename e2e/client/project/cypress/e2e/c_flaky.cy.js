describe('c', () => {
  it('fails once, then passes', () => {
    if (Cypress.currentRetry === 0) throw new Error('flake')
  })

  it('passes', () => {
    cy.wait(10)
  })
})

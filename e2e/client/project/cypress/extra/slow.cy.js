describe('slow', () => {
  it('takes its time', () => {
    cy.wait(Cypress.env('slowMs'))
  })
})
